"""How one token is drawn from logits, and when an answer repeats itself."""

from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from glm_jax.configuration import configuration
from glm_jax.errors import InputError


@configuration
class Sampling:
    """How answers are drawn, and where they end."""

    max_new_tokens: PositiveInt = 128
    "of an answer, the stop token counted"
    temperature: NonNegativeFloat = 1.0
    "0: always the likeliest token; otherwise at least 0.001"
    top_k: NonNegativeInt = 0
    "only the k likeliest tokens are drawn; 0: all are"
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    "only the likeliest tokens that together reach this probability are drawn"
    stop_ids: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] | None = None
    "tokens that end an answer; empty: none does; None: the EOS tokens of the model"
    repeat_ngram: NonNegativeInt = 0
    "an answer ends when its last so many tokens stand in it `repeat_times`; 0: never"
    repeat_times: Annotated[int, Field(ge=2)] = 4

    def __post_init__(self):
        if 0 < self.temperature < 1e-3:  # logits would overflow
            raise InputError(
                f"temperature must be 0 or at least 0.001, got {self.temperature}; 0 is greedy"
            )


def draw(
    logits_BxV: Float[Array, "B V"], keys_B: Key[Array, "B"], places_B: Int[Array, "B"], s: Sampling
) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
    """A token of each row, and its log-probability: that of the model at the sampling temperature,
    before top-k and top-p; at temperature 0 that of temperature 1.

    The noise depends on a row's key and the token's place in the answer alone.
    """
    logits_BxV = logits_BxV / (s.temperature or 1.0)
    if s.temperature == 0:
        tokens_B = jnp.argmax(logits_BxV, axis=-1)
    else:
        tokens_B = jax.vmap(
            lambda key, place, row: jax.random.categorical(jax.random.fold_in(key, place), row)
        )(keys_B, places_B, top_p(top_k(logits_BxV, s.top_k), s.top_p))
    log_probs_BxV = jax.nn.log_softmax(logits_BxV, axis=-1)
    log_probs_B = jnp.take_along_axis(log_probs_BxV, tokens_B[:, None], axis=1)[:, 0]
    return tokens_B.astype(jnp.int32), log_probs_B


def top_k(logits_BxV: Float[Array, "B V"], k: int) -> Float[Array, "B V"]:
    """-inf outside the k likeliest tokens of each row, as transformers' TopKLogitsWarper.

    Tokens as likely as the k-th stay.
    """
    if k == 0 or k >= logits_BxV.shape[1]:
        return logits_BxV
    kth_Bx1 = jax.lax.top_k(logits_BxV, k)[0][:, -1:]
    return jnp.where(logits_BxV < kth_Bx1, -jnp.inf, logits_BxV)


def top_p(logits_BxV: Float[Array, "B V"], p: float) -> Float[Array, "B V"]:
    """-inf outside the nucleus (Holtzman et al., 2020): the fewest likeliest tokens of a row whose
    probabilities reach p. The one that crosses p stays, and so does at least one.

    As transformers' TopPLogitsWarper but for ties: tokens as likely as the last one stay, where
    there the order of the sort decides.
    """
    if p == 1:
        return logits_BxV
    probs_BxV = jax.nn.softmax(logits_BxV, axis=-1)
    # read as integers, the bits of positive floats are in the order of the floats; the least
    # probability that stays is found bit by bit, many times faster than by sorting
    bits_BxV = jax.lax.bitcast_convert_type(probs_BxV, jnp.int32)

    def set_bit(i, least_Bx1):
        tried_Bx1 = least_Bx1 | (jnp.int32(1) << (30 - i))
        reached_BxV = jnp.where(bits_BxV >= tried_Bx1, probs_BxV, 0.0)
        enough_Bx1 = jnp.sum(reached_BxV, axis=-1, keepdims=True) >= p
        return jnp.where(enough_Bx1, tried_Bx1, least_Bx1)

    least_Bx1 = jax.lax.fori_loop(0, 31, set_bit, jnp.zeros_like(bits_BxV[:, :1]))
    return jnp.where(bits_BxV < least_Bx1, -jnp.inf, logits_BxV)


def repeats(
    tokens_BxR: Int[Array, "B R"], lengths_B: Int[Array, "B"], s: Sampling
) -> Bool[Array, "B"]:
    """Whether the last of each row's first tokens, `lengths` of them, have stood there often enough
    to end it.

    repeat_ngram 2, repeat_times 3, tokens 1 1 1 1  ->  True: occurrences may overlap
    """
    B, R = tokens_BxR.shape
    n, windows = s.repeat_ngram, R - s.repeat_ngram + 1
    if n == 0 or windows < s.repeat_times:
        return jnp.zeros((B,), bool)
    last_Bxn = jnp.take_along_axis(
        tokens_BxR, jnp.maximum(lengths_B[:, None] - n + jnp.arange(n)[None], 0), axis=1
    )
    same_BxW = jnp.ones((B, windows), bool)
    for i in range(n):
        same_BxW &= tokens_BxR[:, i : i + windows] == last_Bxn[:, i : i + 1]
    drawn_BxW = jnp.arange(windows)[None] <= lengths_B[:, None] - n
    return jnp.sum(same_BxW & drawn_BxW, axis=1) >= s.repeat_times
