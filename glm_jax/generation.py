"""Answers of a GLM, asked for from the host: all at once, or one token by token."""

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from glm_jax.decoding import Completions, Decoding, rollout, row_keys, start, step
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.sampling import Sampling


def generate(
    model: GLM,
    input_ids: Array | np.ndarray | Sequence,
    attention_mask: Array | np.ndarray | Sequence | None = None,
    *,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop_ids: Sequence[int] | np.ndarray | None = None,
    repeat_ngram: int = 0,
    repeat_times: int = 4,
    key: Array | None = None,
) -> Completions:
    """Answers to prompts; compiled once for each shape of the prompts and each choice of settings.

    Args:
      input_ids: [B, T] integers.
      attention_mask: [B, T] booleans or 0 and 1: which tokens are real. Pads may lie on either
        side, or both. None: all tokens are real.
      max_new_tokens, temperature, top_k, top_p, stop_ids, repeat_ngram, repeat_times: see
        `Sampling`; temperature 0 takes the likeliest token each time.
      key: of the noise, `jax.random.key(seed)`; needed when the temperature is above 0.

    Returns:
      tokens [B, max_new_tokens] (the stop token is kept, after it come pads), log_probs of the
      tokens (0 on pads), mask, and finish_reason: "stop", "length" or "repetition" for each row.

    Raises:
      InputError: a setting or an array is not as said above.
    """
    sampling = Sampling(
        max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
        stop_ids=stop_ids, repeat_ngram=repeat_ngram, repeat_times=repeat_times,
    )  # fmt: skip
    if model.head_kind != "lm":
        raise InputError(f"a model with the head {model.head_kind!r} writes no text; 'lm' does")
    tokens_BxT, mask_BxT = _prompts(input_ids, attention_mask, model.config.vocab_size)
    key = _noise(key, sampling)
    return _generate(model, tokens_BxT, mask_BxT, key, sampling=sampling)


def stream(
    model: GLM, prompt: Sequence[int], sampling: Sampling, key: Key[Array, ""], width: int
) -> Iterator[int]:
    """The tokens of one answer as they are drawn, the stop token included.

    Compiled once for each `width`, the tokens that the prompt is padded to.
    """
    tokens_1xP = np.zeros((1, width), np.int32)
    tokens_1xP[0, width - len(prompt) :] = prompt
    mask_1xP = (np.arange(width) >= width - len(prompt))[None]
    state, token, ended = _start(model, tokens_1xP, mask_1xP, key, sampling=sampling)
    yield int(token)
    for _ in range(1, sampling.max_new_tokens):
        if ended:
            return
        state, token, ended = _step(model, state, sampling=sampling)
        yield int(token)


@partial(jax.jit, static_argnames="sampling")
def _generate(model, tokens, mask, key, *, sampling: Sampling) -> Completions:
    return rollout(model, tokens, mask, row_keys(key, jnp.arange(len(tokens))), sampling)


@partial(jax.jit, static_argnames="sampling")
def _start(model, tokens, mask, key, *, sampling: Sampling):
    return _newest(start(model, tokens, mask, key[None], sampling))


@partial(jax.jit, static_argnames="sampling", donate_argnames="state")
def _step(model, state, *, sampling: Sampling):
    return _newest(step(model, state, sampling))


def _newest(state: Decoding):
    """The state, its newest token, and whether that was the last: the host reads scalars alone."""
    drawn = state.completions
    return state, drawn.tokens[0, state.places[0] - 1], ~state.live[0]


def _noise(key: Array | None, sampling: Sampling) -> Key[Array, ""]:
    """The key, typed; without chance any will do."""
    if key is None and sampling.temperature == 0:
        return jax.random.key(0)
    if isinstance(key, jax.Array):
        if key.ndim == 0 and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            return key
        if key.ndim == 1 and key.dtype == jnp.uint32:  # of `jax.random.PRNGKey`
            return jax.random.wrap_key_data(key)
    raise InputError(
        f"temperature {sampling.temperature} needs a key, jax.random.key(seed); got {key!r}"
    )


def _prompts(input_ids, attention_mask, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Checked tokens (0 at pads, which may have been anything) and mask, on the host."""
    try:
        tokens = np.asarray(input_ids)
        mask = np.ones(tokens.shape, bool) if attention_mask is None else np.asarray(attention_mask)
    except ValueError:  # numpy's word on rows of different lengths
        raise InputError(
            "input_ids and attention_mask must be [B, T]: pad rows to one length, mask the pads"
        ) from None
    if tokens.ndim != 2 or not len(tokens) or not np.issubdtype(tokens.dtype, np.integer):
        raise InputError(
            f"input_ids must be integers of shape [B, T], got {tokens.dtype} of {tokens.shape}"
        )
    if mask.shape != tokens.shape or not np.isin(mask, (0, 1)).all():
        raise InputError(
            f"attention_mask must be booleans, or 0 and 1, of input_ids' shape {tokens.shape}, "
            f"got {mask.dtype} of {mask.shape}"
        )
    mask = mask.astype(bool)
    empty = np.flatnonzero(~mask.any(axis=1))
    if len(empty):
        raise InputError(f"attention_mask leaves row {empty[0]} of input_ids without a token")
    tokens = np.where(mask, tokens, 0)
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        wrong = tokens[(tokens < 0) | (tokens >= vocab_size)][0]
        raise InputError(f"input_ids must be in [0, {vocab_size}), got {wrong}")
    return tokens.astype(np.int32), mask
