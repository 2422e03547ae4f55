"""What PPO is fed: prompts, the scores of their reference answers, supervised data."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt

from glm_jax.configuration import configuration
from glm_jax.data.batches import Counts, order, prompt_arrays, sft_arrays, span_mask
from glm_jax.data.records import Dialogue, Prompt
from glm_jax.decoding import rollout, row_keys
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.sampling import Sampling
from glm_jax.sharding import replicated, rows_split
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import sft
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.scores import PPOBatch, Reward, rewards
from glm_jax.train.progress import progress


@configuration
class ReferenceConfig:
    """The reference answers, whose scores are subtracted."""

    samples: NonNegativeInt = 1
    "of each prompt; their mean score is taken. 0: no reference reward"
    temperature: NonNegativeFloat | None = None
    "None: that of the rollouts"
    table: str | None = None
    "file of the scores, which runs may share; it is made when it is not there"


def reference_scores(
    model: GLM,
    reward: GLM | Reward,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    config: ReferenceConfig,
    *,
    max_prompt: int = 128,
    batch_size: int = 64,
    seed: int = 0,
) -> np.ndarray:
    """r(x, y_ref) of every prompt, [N]: the mean score of the SFT model's own answers."""
    n = config.samples
    if n == 0:
        return np.zeros(len(prompts), np.float32)
    if config.temperature is not None:
        sampling = dataclasses.replace(sampling, temperature=config.temperature)
    at, _ = _prompt_batches(tokenizer, prompts, max_prompt)
    total, scores = len(prompts) * n, []
    key = jax.random.key(seed)
    with progress("reference answers", total) as bar:
        for first in range(0, total, batch_size):
            # the last batch is filled up, so that one shape is compiled
            numbers = np.minimum(np.arange(first, first + batch_size), total - 1)
            found = _scored(model, reward, at(numbers // n), key, numbers, sampling=sampling)
            scores.append(np.asarray(found))
            bar.update(min(first + batch_size, total))
    return np.concatenate(scores)[:total].reshape(-1, n).mean(axis=1)


@partial(jax.jit, static_argnames="sampling")
def _scored(model, reward, batch, key, numbers_B, *, sampling: Sampling):
    batch, numbers_B = rows_split((batch, numbers_B))
    rows = batch.prompts, batch.prompt_mask, row_keys(key, numbers_B)
    return replicated(rewards(reward, batch, rollout(model, *rows, sampling)))


def _prompt_batches(
    tokenizer: Tokenizer, prompts: Sequence[Prompt], max_prompt: int
) -> tuple[Callable[[np.ndarray], PPOBatch], Counts]:
    """(the prompts in these places as a batch without reference scores, what was cut)."""
    arrays, counts = prompt_arrays(prompts, tokenizer, max_prompt)
    P, lengths_N = arrays.tokens_NxP.shape[1], arrays.lengths_N
    mask_NxP = span_mask(P - lengths_N, np.full_like(lengths_N, P), P)

    def at(rows: np.ndarray) -> PPOBatch:
        rows = rows.astype(np.int32)
        zeros_B = np.zeros(len(rows), np.float32)
        return PPOBatch(arrays.tokens_NxP[rows], mask_NxP[rows], rows, zeros_B, None)

    return at, counts


def batches(
    config: PPOHyperparameters,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    supervised: Sequence[Dialogue] = (),
    *,
    max_prompt: int = 128,
    max_length: int = 256,
    seed: int = 0,
) -> tuple[Callable[[int], PPOBatch], dict[str, Counts]]:
    """(the batch of any iteration, what was cut or dropped): a pure function of its number.

    `max_length` is that of a supervised dialogue, in tokens. The reference scores are 0: put in
    `reference_scores(...)[batch.rows]`.
    """
    at, counts = _prompt_batches(tokenizer, prompts, max_prompt)
    told = {"prompts": counts}
    if config.supervised_coefficient:
        if not supervised:
            raise InputError("ppo.supervised_coefficient is not 0: supervised dialogues are needed")
        dialogues, told["supervised"] = sft_arrays(supervised, tokenizer, max_length)

    def batch_at(i: int) -> PPOBatch:
        batch = at(order(seed, len(prompts), config.batch_size, i))
        if not config.supervised_coefficient:
            return batch
        U, S = config.updates, config.supervised_batch_size
        chosen = order(seed + 1, len(dialogues.lengths_N), U * S, i)
        texts = jax.tree.map(lambda x: x.reshape(U, S, -1), sft.batch_of(dialogues, chosen))
        return batch._replace(supervised=texts)

    return batch_at, told
