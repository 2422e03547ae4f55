"""Scores and log-probabilities of any number of responses, in batches of one shape."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.data.batches import PairArrays, SFTArrays, cut_prompt, span_mask
from glm_jax.data.records import Sample
from glm_jax.model import GLM
from glm_jax.sharding import replicated
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.scoring import token_log_probs


def score_samples(
    model: GLM,
    tokenizer: Tokenizer,
    samples: Sequence[Sample],
    max_prompt: int | None = None,
    width: int = 0,
) -> np.ndarray:
    """A reward model's scores of responses, token for token as they were drawn, [N] float32.

    `max_prompt`: the tokens that prompts were cut to when the responses were drawn; `width`: what
    all rows are padded to at least, so that calls with other samples compile nothing anew.
    """
    return score_dialogues(model, sample_arrays(tokenizer, samples, max_prompt, width))


def score_dialogues(model: GLM, arrays: SFTArrays) -> np.ndarray:
    """A reward model's scores of dialogues, [N] float32."""
    return _over_rows(partial(_scores, model), arrays.tokens_NxT, arrays.lengths_N)


def score_pairs(model: GLM, arrays: PairArrays) -> tuple[np.ndarray, np.ndarray]:
    """A reward model's scores of chosen and rejected responses, [N] float32 each."""
    scores = partial(_scores, model)
    chosen_N = _over_rows(scores, arrays.chosen_NxT, arrays.chosen_lengths_N)
    return chosen_N, _over_rows(scores, arrays.rejected_NxT, arrays.rejected_lengths_N)


def response_log_probs(
    model: GLM,
    tokenizer: Tokenizer,
    samples: Sequence[Sample],
    temperature: float = 1.0,
    max_prompt: int | None = None,
) -> np.ndarray:
    """log p of each whole response under the model, in nats, [N] float32."""
    arrays = sample_arrays(tokenizer, samples, max_prompt)
    log_probs = partial(_log_probs, model, temperature=temperature)
    return _over_rows(log_probs, arrays.tokens_NxT, arrays.lengths_N, arrays.prompt_lengths_N)


def sample_arrays(
    tokenizer: Tokenizer,
    samples: Sequence[Sample],
    max_prompt: int | None = None,
    width: int = 0,
) -> SFTArrays:
    """Prompts, cut from the left behind `[gMASK] <sop>`, and responses, right-padded."""
    prompts = tokenizer.encode_prompts([sample.prompt for sample in samples])
    if max_prompt is not None:
        prefix = len(tokenizer.prefix_ids)
        prompts = [cut_prompt(prompt, prefix, max_prompt) for prompt in prompts]
    rows = [prompt + sample.tokens for prompt, sample in zip(prompts, samples, strict=True)]
    lengths_N = np.array([len(row) for row in rows], np.int32)
    tokens_NxT = np.full((len(rows), max(lengths_N.max(), width)), tokenizer.pad_id, np.int32)
    for padded, row in zip(tokens_NxT, rows, strict=True):
        padded[: len(row)] = row
    prompt_lengths_N = np.array([len(prompt) for prompt in prompts], np.int32)
    return SFTArrays(tokens_NxT, lengths_N, prompt_lengths_N, np.arange(len(rows)))


@jax.jit
def _scores(model: GLM, tokens_BxT, mask_BxT):
    return replicated(model(tokens_BxT, mask_BxT))


@partial(jax.jit, static_argnames="temperature")
def _log_probs(model: GLM, tokens_BxT, mask_BxT, starts_B, *, temperature: float):
    log_probs = token_log_probs(model, tokens_BxT, mask_BxT, tokens_BxT.shape[1] - 1, temperature)
    columns_T = jnp.arange(1, tokens_BxT.shape[1])
    response = mask_BxT[:, 1:] & (columns_T[None, :] >= starts_B[:, None])
    return jnp.sum(jnp.where(response, log_probs, 0.0), axis=1)


def _over_rows(
    function: Callable, tokens_NxT: np.ndarray, lengths_N: np.ndarray, *others: np.ndarray
) -> np.ndarray:
    N, T = tokens_NxT.shape
    results, batch = [], 128
    for first in range(0, N, batch):
        # the last batch is filled up, so that one shape is compiled
        rows = np.minimum(np.arange(first, first + batch), N - 1)
        mask = span_mask(np.zeros_like(lengths_N[rows]), lengths_N[rows], T)
        chosen = [other[rows] for other in others]
        results.append(np.asarray(function(tokens_NxT[rows], mask, *chosen)))
    return np.concatenate(results)[:N]
