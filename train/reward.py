"""Reward models: a scalar head learns from pairs which response people prefer."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from glm_jax.configuration import configuration
from glm_jax.data.batches import PairArrays, order, pair_arrays, span_mask
from glm_jax.data.records import Pair, Sample, read
from glm_jax.model import GLM, with_head
from glm_jax.pretrained import load_pretrained, save_pretrained
from glm_jax.tokenizer import Tokenizer
from glm_jax.train import loop
from glm_jax.train.losses import ranking_loss
from glm_jax.train.optimizer import OptimizerConfig, adamw
from glm_jax.train.run_folder import claim, write_json
from glm_jax.train.scoring import last_scores
from glm_jax.train.update import TrainState, start, update


@configuration
class RewardConfig:
    run: str
    "the run's folder; the reward model comes to lie in its subfolder `model`"
    model: str
    "folder of the model whose trunk it starts from, as a rule the SFT model"
    pairs: str
    "file of pairs, without ties"
    max_length: int = 256
    "tokens of prompt and response together"
    epochs: float = 1.0
    batch_size: int = 64
    "pairs"
    l2: float = 0.01
    "weight of (r_w^2 + r_l^2) in the loss, which holds the level of the scores"
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-4)
    checkpoint_every: int = 100
    seed: int = 0


class PairBatch(NamedTuple):
    """Chosen and rejected dialogues, right-padded."""

    chosen: Int[Array, "B T"]
    chosen_mask: Bool[Array, "B T"]
    rejected: Int[Array, "B T"]
    rejected_mask: Bool[Array, "B T"]


def pair_scores(model: GLM, batch: PairBatch) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Scores of chosen and rejected, from one forward pass over both."""
    tokens = jnp.concatenate([batch.chosen, batch.rejected])
    mask = jnp.concatenate([batch.chosen_mask, batch.rejected_mask])
    chosen_B, rejected_B = jnp.split(last_scores(model, tokens, mask), 2)
    return chosen_B, rejected_B


@partial(jax.jit, static_argnames=("optimiser", "l2"), donate_argnums=0)
def step(state: TrainState, batch: PairBatch, *, optimiser, l2: float) -> tuple:
    def mean_loss(model):
        chosen_B, rejected_B = pair_scores(model, batch)
        ahead_B = (chosen_B > rejected_B) + 0.5 * (chosen_B == rejected_B)
        metrics = {
            "accuracy": jnp.mean(ahead_B),
            "margin": jnp.mean(chosen_B - rejected_B),
            "score": jnp.mean(jnp.concatenate([chosen_B, rejected_B])),
        }
        return jnp.mean(ranking_loss(chosen_B, rejected_B, l2)), metrics

    return update(state, mean_loss, optimiser)


def batch_of(arrays: PairArrays, rows: np.ndarray) -> PairBatch:
    zero, T = np.zeros(len(rows), np.int32), arrays.chosen_NxT.shape[1]
    return PairBatch(
        arrays.chosen_NxT[rows],
        span_mask(zero, arrays.chosen_lengths_N[rows], T),
        arrays.rejected_NxT[rows],
        span_mask(zero, arrays.rejected_lengths_N[rows], T),
    )


def run(config: RewardConfig, label: str = "reward model") -> Path:
    """Trains, or resumes training, and returns the folder of the reward model."""
    folder = claim(config.run, config)
    output = folder / "model"
    if output.exists():
        return output
    tokenizer = Tokenizer.load(config.model)
    model = with_head(load_pretrained(config.model), "scalar", nnx.Rngs(config.seed))
    pairs = [pair for pair in read(config.pairs, Pair) if not pair.tie]
    arrays, counts = pair_arrays(pairs, tokenizer, config.max_length)
    write_json(folder / "counts.json", counts)
    n = len(arrays.rows_N)
    steps = max(round(config.epochs * n / config.batch_size), 1)
    optimiser = adamw(config.optimizer, steps)
    state = loop.train(
        folder,
        start(model, optimiser),
        partial(step, optimiser=optimiser, l2=config.l2),
        lambda i: batch_of(arrays, order(config.seed, n, config.batch_size, i)),
        steps,
        label=label,
        checkpoint_every=config.checkpoint_every,
    )
    save_pretrained(state.model, output, tokenizer)
    loop.finish(folder)
    return output


_last_scores = jax.jit(last_scores)


def score_rows(
    model: GLM, tokens_NxT: np.ndarray, lengths_N: np.ndarray, batch_size: int = 128
) -> np.ndarray:
    """Scores of right-padded rows, [N] float32."""
    N, T = tokens_NxT.shape
    scores = []
    for first in range(0, N, batch_size):
        # the last batch is filled up, so that one shape is compiled
        rows = np.minimum(np.arange(first, first + batch_size), N - 1)
        mask = span_mask(np.zeros_like(lengths_N[rows]), lengths_N[rows], T)
        scores.append(np.asarray(_last_scores(model, tokens_NxT[rows], mask)))
    return np.concatenate(scores)[:N]


def score_samples(model: GLM, tokenizer: Tokenizer, samples: list[Sample]) -> np.ndarray:
    """Scores of sampled responses, token for token as they were drawn, [N] float32."""
    prompts = tokenizer.encode_prompts([sample.prompt for sample in samples])
    rows = [prompt + sample.tokens for prompt, sample in zip(prompts, samples, strict=True)]
    lengths_N = np.array([len(row) for row in rows], np.int32)
    tokens_NxT = np.full((len(rows), lengths_N.max()), tokenizer.pad_id, np.int32)
    for padded, row in zip(tokens_NxT, rows, strict=True):
        padded[: len(row)] = row
    return score_rows(model, tokens_NxT, lengths_N)


def score_pairs(model: GLM, arrays: PairArrays) -> tuple[np.ndarray, np.ndarray]:
    """Scores of chosen and rejected responses, [N] float32 each."""
    chosen_N = score_rows(model, arrays.chosen_NxT, arrays.chosen_lengths_N)
    return chosen_N, score_rows(model, arrays.rejected_NxT, arrays.rejected_lengths_N)
