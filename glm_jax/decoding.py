"""Drawing answers inside a compiled program, with a key/value cache.

`start` reads the prompts and draws the first token of each answer, `step` draws one more, and
`rollout` does both until every answer has ended. `glm_jax.refill` does it in fewer rows.

Dims: B prompts, P prompt tokens, R response tokens, S columns of the cache, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from glm_jax.layers import Cache
from glm_jax.model import GLM
from glm_jax.sampling import Sampling, draw, repeats
from glm_jax.sight import causal, positions

FINISH_REASONS = "length", "stop", "repetition"
LENGTH, STOP, REPETITION = range(3)


class Completions(NamedTuple):
    """Answers as they were drawn; after the end come pads, which the mask leaves out."""

    tokens: Int[Array, "B R"]
    log_probs: Float[Array, "B R"]  # of the drawn tokens, see `glm_jax.sampling.draw`; 0 on pads
    mask: Bool[Array, "B R"]  # the stop token is in, what follows is out
    finish: Int[Array, "B"]  # LENGTH (cut off, or not ended yet), STOP or REPETITION

    @property
    def lengths(self) -> Int[Array, "B"]:
        """Tokens of each answer, the stop token counted."""
        return jnp.sum(self.mask, axis=1, dtype=jnp.int32)

    @property
    def truncated(self) -> Bool[Array, "B"]:
        """Whether the answer was cut off at max_new_tokens."""
        return self.finish == LENGTH

    @property
    def finish_reason(self) -> np.ndarray:
        """For each row "stop", "length" or "repetition"; not inside jit."""
        return np.array(FINISH_REASONS)[np.asarray(self.finish)]


class Decoding(NamedTuple):
    """Answers under way, and what drawing their next tokens takes.

    The first P columns of the cache are the prompts', the R others those of what is drawn. All
    rows write to one column, wherever their answers began; it goes round in the R columns.
    """

    completions: Completions
    places: Int[Array, "B"]  # tokens drawn: where the next one of each answer is written
    cache: Cache
    mask: Bool[Array, "B S"]  # columns of the cache that hold a row's real tokens
    lengths: Int[Array, "B"]  # real tokens of the prompts
    keys: Key[Array, "B"]

    @property
    def live(self) -> Bool[Array, "B"]:
        """The rows whose answers have not ended."""
        drawn = self.completions
        return (drawn.finish == LENGTH) & (self.places < drawn.tokens.shape[1])


def rollout(
    model: GLM,
    prompts_BxP: Int[Array, "B P"],
    prompt_mask_BxP: Bool[Array, "B P"],
    keys_B: Key[Array, "B"],
    sampling: Sampling,
) -> Completions:
    """Draws one answer to each prompt; its pads may lie on either side.

    A row gets the same answer in whichever batch it is. The loop ends when every row has.
    """

    # weights are cut out of their stacks once, not at every token
    model = model.for_decoding()
    state = start(model, prompts_BxP, prompt_mask_BxP, keys_B, sampling)
    with jax.named_scope("decode"):
        state = jax.lax.while_loop(
            lambda state: jnp.any(state.live), lambda state: step(model, state, sampling), state
        )
    return state.completions


def start(
    model: GLM,
    prompts_BxP: Int[Array, "B P"],
    prompt_mask_BxP: Bool[Array, "B P"],
    keys_B: Key[Array, "B"],
    sampling: Sampling,
    room: int | None = None,
) -> Decoding:
    """Reads the prompts and draws the first token of each answer.

    `room`: columns of the cache for what will be drawn; None: for all of it.
    """
    (B, P), R = prompts_BxP.shape, sampling.max_new_tokens
    room = R if room is None else room
    with jax.named_scope("prefill"):
        x_BxPxD, cache = model.extend(
            prompts_BxP,
            positions(prompt_mask_BxP),
            causal(prompt_mask_BxP, P + room),
            model.empty_cache(B, P + room),
        )
    last_B = P - 1 - jnp.argmax(prompt_mask_BxP[:, ::-1], axis=1)
    x_BxD = jnp.take_along_axis(x_BxPxD, last_B[:, None, None], axis=1)[:, 0]
    state = Decoding(
        unwritten(B, R, model.config.pad_token_id),
        jnp.zeros((B,), jnp.int32),
        cache,
        jnp.pad(prompt_mask_BxP, ((0, 0), (0, room))),
        jnp.sum(prompt_mask_BxP, axis=1, dtype=jnp.int32),
        keys_B,
    )
    return _write(model, state, x_BxD, sampling)


def step(model: GLM, state: Decoding, sampling: Sampling) -> Decoding:
    """Draws the next token of each answer that has not ended."""
    (tokens_BxR, *_), places_B, S = state.completions, state.places, state.mask.shape[1]
    last_Bx1 = jnp.take_along_axis(tokens_BxR, places_B[:, None] - 1, axis=1)
    positions_Bx1 = (state.lengths + places_B - 1)[:, None]
    written_S = jnp.arange(S) == state.cache.column
    mask_BxS = state.mask | (written_S[None] & state.live[:, None])
    x_Bx1xD, cache = model.extend(last_Bx1, positions_Bx1, mask_BxS[:, None], state.cache)
    first = S - tokens_BxR.shape[1]
    cache = cache._replace(column=jnp.where(cache.column == S, first, cache.column))
    return _write(model, state._replace(cache=cache, mask=mask_BxS), x_Bx1xD[:, 0], sampling)


def unwritten(rows: int, length: int, pad: int) -> Completions:
    """Answers without a token."""
    shape = rows, length
    return Completions(
        jnp.full(shape, pad, jnp.int32), jnp.zeros(shape, jnp.float32), jnp.zeros(shape, bool),
        jnp.full((rows,), LENGTH, jnp.int32),
    )  # fmt: skip


def row_keys(key: Key[Array, ""], rows_B: Int[Array, "B"]) -> Key[Array, "B"]:
    """A key for each row from its number (of prompt and sample, say)."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows_B)


def _write(model: GLM, state: Decoding, x_BxD: Float[Array, "B D"], sampling: Sampling) -> Decoding:
    """The state with one token more in each answer that has not ended."""
    drawn, live_B, places_B = state.completions, state.live, state.places
    stop_ids = model.config.eos_token_id if sampling.stop_ids is None else sampling.stop_ids
    stops = jnp.asarray(stop_ids, jnp.int32)
    tokens_B, log_probs_B = draw(model.outputs(x_BxD), state.keys, places_B, sampling)
    R = drawn.tokens.shape[1]
    here_BxR = (jnp.arange(R)[None] == places_B[:, None]) & live_B[:, None]
    tokens_BxR = jnp.where(here_BxR, tokens_B[:, None], drawn.tokens)
    ended_B = jnp.where(repeats(tokens_BxR, places_B + 1, sampling), REPETITION, LENGTH)
    ended_B = jnp.where(jnp.any(tokens_B[:, None] == stops[None, :], axis=1), STOP, ended_B)
    completions = Completions(
        tokens_BxR,
        jnp.where(here_BxR, log_probs_B[:, None], drawn.log_probs),
        drawn.mask | here_BxR,
        jnp.where(live_B, ended_B, drawn.finish),
    )
    return state._replace(completions=completions, places=jnp.where(live_B, places_B + 1, places_B))
