"""Sampling from a GLM with a key/value cache, inside jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from glm_jax.configuration import configuration
from glm_jax.errors import InputError
from glm_jax.layers import empty_cache
from glm_jax.model import GLM, positions


@configuration
class Sampling:
    """How answers are drawn."""

    max_tokens: int = 128
    "the stop token counted"
    temperature: float = 1.0
    greedy: bool = False

    def __post_init__(self):
        if self.max_tokens < 1:
            raise InputError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if not self.temperature > 0:
            raise InputError(
                f"temperature must be above 0, got {self.temperature}; "
                f"for the most likely tokens set greedy to true"
            )


class Completions(NamedTuple):
    """Answers as they were drawn; after the stop token come pads, which the mask leaves out."""

    tokens: Int[Array, "B R"]
    log_probs: Float[Array, "B R"]  # of the drawn tokens, at the sampling temperature
    mask: Bool[Array, "B R"]  # the stop token is in, what follows is out
    stopped: Bool[Array, "B"]  # False: cut off at max_tokens

    @property
    def lengths(self) -> Int[Array, "B"]:
        """Tokens of each answer, the stop token counted."""
        return jnp.sum(self.mask, axis=1, dtype=jnp.int32)


def generate(
    model: GLM,
    prompts_BxP: Int[Array, "B P"],
    prompt_mask_BxP: Bool[Array, "B P"],
    keys_B: Key[Array, "B"],
    sampling: Sampling,
) -> Completions:
    """Draws one answer to each left-padded prompt.

    The noise of a token depends on its row's key and its place in the answer alone, so that a row
    gets the same answer in whichever batch it is. Greedy answers carry the log-probabilities of
    temperature 1. The loop ends when every row has stopped.
    """
    B, P = prompts_BxP.shape
    R = sampling.max_tokens
    temperature = 1.0 if sampling.greedy else sampling.temperature
    stops = jnp.asarray(model.config.eos_token_id, jnp.int32)
    pad_id = model.config.pad_token_id

    def draw(hidden_BxD, t):
        logits_BxV = model.outputs(hidden_BxD) / temperature
        if sampling.greedy:
            tokens_B = jnp.argmax(logits_BxV, axis=-1)
        else:
            tokens_B = jax.vmap(
                lambda key, row: jax.random.categorical(jax.random.fold_in(key, t), row)
            )(keys_B, logits_BxV)
        log_probs_BxV = jax.nn.log_softmax(logits_BxV, axis=-1)
        log_probs_B = jnp.take_along_axis(log_probs_BxV, tokens_B[:, None], axis=1)[:, 0]
        return tokens_B.astype(jnp.int32), log_probs_B

    def write(t, drawn, completions):
        tokens_B, log_probs_B = drawn
        live_B = ~completions.stopped
        ended_B = jnp.any(tokens_B[:, None] == stops[None, :], axis=1)
        return Completions(
            completions.tokens.at[:, t].set(jnp.where(live_B, tokens_B, pad_id)),
            completions.log_probs.at[:, t].set(jnp.where(live_B, log_probs_B, 0.0)),
            completions.mask.at[:, t].set(live_B),
            completions.stopped | ended_B,
        )

    mask_BxS = jnp.concatenate([prompt_mask_BxP, jnp.ones((B, R), bool)], axis=1)
    lengths_B = jnp.sum(prompt_mask_BxP, axis=1, dtype=jnp.int32)
    cache = empty_cache(model.config, B, P + R, model.embedding[...].dtype)
    with jax.named_scope("prefill"):
        x_BxPxD, cache = model.extend(prompts_BxP, positions(prompt_mask_BxP), mask_BxS, cache)
    blank = Completions(
        jnp.full((B, R), pad_id, jnp.int32), jnp.zeros((B, R)), jnp.zeros((B, R), bool),
        jnp.zeros((B,), bool),
    )  # fmt: skip
    first = write(jnp.int32(0), draw(x_BxPxD[:, -1], jnp.int32(0)), blank)

    def unfinished(carry):
        t, completions, _ = carry
        return (t < R) & ~jnp.all(completions.stopped)

    def token(carry):
        t, completions, cache = carry
        last_Bx1 = jax.lax.dynamic_slice_in_dim(completions.tokens, t - 1, 1, axis=1)
        positions_Bx1 = (lengths_B + t - 1)[:, None]
        x_Bx1xD, cache = model.extend(last_Bx1, positions_Bx1, mask_BxS, cache)
        return t + 1, write(t, draw(x_Bx1xD[:, 0], t), completions), cache

    with jax.named_scope("decode"):
        _, completions, _ = jax.lax.while_loop(unfinished, token, (jnp.int32(1), first, cache))
    return completions


def row_keys(key: Key[Array, ""], rows_B: Int[Array, "B"]) -> Key[Array, "B"]:
    """A key for each row from its number (of prompt and sample, say)."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows_B)
