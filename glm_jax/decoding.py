"""Drawing answers inside a compiled program, with a key/value cache.

`start` reads the prompts and draws the first token of each answer, `step` draws one more, and
`rollout` does both until every answer has ended.

Dims: B prompts, P prompt tokens, R response tokens, S = P + R columns of the cache, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from glm_jax.layers import Cache, empty_cache
from glm_jax.model import GLM, positions
from glm_jax.sampling import Sampling, draw, repeats

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
    """Answers under way, and what drawing their next tokens takes."""

    completions: Completions
    place: Int[Array, ""]  # tokens drawn: where the next one is written
    cache: Cache
    mask: Bool[Array, "B S"]  # columns of the cache that hold real tokens once they are written
    lengths: Int[Array, "B"]  # real tokens of the prompts
    keys: Key[Array, "B"]


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

    def unfinished(state: Decoding) -> Bool[Array, ""]:
        live_B = state.completions.finish == LENGTH
        return (state.place < sampling.max_new_tokens) & jnp.any(live_B)

    state = start(model, prompts_BxP, prompt_mask_BxP, keys_B, sampling)
    with jax.named_scope("decode"):
        state = jax.lax.while_loop(unfinished, lambda state: step(model, state, sampling), state)
    return state.completions


def start(
    model: GLM,
    prompts_BxP: Int[Array, "B P"],
    prompt_mask_BxP: Bool[Array, "B P"],
    keys_B: Key[Array, "B"],
    sampling: Sampling,
) -> Decoding:
    """Reads the prompts and draws the first token of each answer."""
    (B, P), R = prompts_BxP.shape, sampling.max_new_tokens
    completions = Completions(
        jnp.full((B, R), model.config.pad_token_id, jnp.int32), jnp.zeros((B, R), jnp.float32),
        jnp.zeros((B, R), bool), jnp.full((B,), LENGTH, jnp.int32),
    )  # fmt: skip
    mask_BxS = jnp.concatenate([prompt_mask_BxP, jnp.ones((B, R), bool)], axis=1)
    lengths_B = jnp.sum(prompt_mask_BxP, axis=1, dtype=jnp.int32)
    cache = empty_cache(model.config, B, P + R, model.embedding[...].dtype)
    with jax.named_scope("prefill"):
        x_BxPxD, cache = model.extend(prompts_BxP, positions(prompt_mask_BxP), mask_BxS, cache)
    last_B = P - 1 - jnp.argmax(prompt_mask_BxP[:, ::-1], axis=1)
    x_BxD = jnp.take_along_axis(x_BxPxD, last_B[:, None, None], axis=1)[:, 0]
    state = Decoding(completions, jnp.int32(0), cache, mask_BxS, lengths_B, keys_B)
    return _write(model, state, x_BxD, sampling)


def step(model: GLM, state: Decoding, sampling: Sampling) -> Decoding:
    """Draws the next token of each answer that has not ended."""
    tokens_BxR, last = state.completions.tokens, state.place - 1
    last_Bx1 = jax.lax.dynamic_slice_in_dim(tokens_BxR, last, 1, axis=1)
    positions_Bx1 = (state.lengths + last)[:, None]
    x_Bx1xD, cache = model.extend(last_Bx1, positions_Bx1, state.mask, state.cache)
    return _write(model, state._replace(cache=cache), x_Bx1xD[:, 0], sampling)


def row_keys(key: Key[Array, ""], rows_B: Int[Array, "B"]) -> Key[Array, "B"]:
    """A key for each row from its number (of prompt and sample, say)."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows_B)


def _write(model: GLM, state: Decoding, x_BxD: Float[Array, "B D"], sampling: Sampling) -> Decoding:
    """The state with one token more in each answer that has not ended."""
    drawn, t = state.completions, state.place
    stop_ids = model.config.eos_token_id if sampling.stop_ids is None else sampling.stop_ids
    stops = jnp.asarray(stop_ids, jnp.int32)
    tokens_B, log_probs_B = draw(model.outputs(x_BxD), state.keys, t, sampling)
    live_B = drawn.finish == LENGTH
    tokens_B = jnp.where(live_B, tokens_B, model.config.pad_token_id)
    tokens_BxR = drawn.tokens.at[:, t].set(tokens_B)
    ended_B = jnp.where(repeats(tokens_BxR, t + 1, sampling), REPETITION, LENGTH)
    ended_B = jnp.where(jnp.any(tokens_B[:, None] == stops[None, :], axis=1), STOP, ended_B)
    completions = Completions(
        tokens_BxR,
        drawn.log_probs.at[:, t].set(jnp.where(live_B, log_probs_B, 0.0)),
        drawn.mask.at[:, t].set(live_B),
        jnp.where(live_B, ended_B, drawn.finish),
    )
    return state._replace(completions=completions, place=t + 1)
