"""Reward models: a scalar head learns from pairs which response people prefer."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from glm_jax.attention import check_platform
from glm_jax.checkpoint.pretrained import architecture_of, load_pretrained, save_pretrained
from glm_jax.configuration import configuration, required
from glm_jax.data.batches import PairArrays, grouped_order, pair_arrays, span_mask, width
from glm_jax.data.records import Pair, read
from glm_jax.mesh import MeshConfig, mesh_for, on_mesh
from glm_jax.model import GLM, with_head
from glm_jax.sharding import placed
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import loop
from glm_jax.train.losses import ranking_loss
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.run_folder import begun, claim, write_json
from glm_jax.train.update import WHOLE_BATCH, MemoryConfig, TrainState, start, update


@configuration
class RewardConfig:
    run: str = ""
    "the run's folder; the reward model comes to lie in its subfolder `model`"
    model: str = ""
    "folder of the model whose trunk it starts from, as a rule the SFT model"
    pairs: str = ""
    "file of pairs, without ties"
    max_length: PositiveInt = 256
    "tokens of prompt and response together"
    widths: PositiveInt = 4
    "widths that batches are padded to; each is compiled once"
    epochs: PositiveFloat = 1.0
    batch_size: PositiveInt = 64
    "pairs"
    l2: NonNegativeFloat = 0.01
    "weight of (r_w^2 + r_l^2) in the loss, which holds the level of the scores"
    mesh: MeshConfig = MeshConfig()
    memory: MemoryConfig = MemoryConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-4)
    checkpoint_every: PositiveInt = 100
    seed: NonNegativeInt = 0


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
    chosen_B, rejected_B = jnp.split(model(tokens, mask), 2)
    return chosen_B, rejected_B


@partial(jax.jit, static_argnames=("optimiser", "l2", "memory"), donate_argnums=0)
def step(
    state: TrainState, batch: PairBatch, *, optimiser, l2: float,
    memory: MemoryConfig = WHOLE_BATCH,
) -> tuple:  # fmt: skip
    def summed(model: GLM, pairs: PairBatch):
        chosen_B, rejected_B = pair_scores(model, pairs)
        margins_B = chosen_B - rejected_B
        sums = {
            "accuracy": jnp.sum(0.5 + 0.5 * jnp.sign(margins_B)),
            "margin": jnp.sum(margins_B),
            "score": jnp.sum(0.5 * (chosen_B + rejected_B)),
        }
        return jnp.sum(ranking_loss(chosen_B, rejected_B, l2)), sums

    return update(state, summed, batch, float(len(batch.chosen)), optimiser, memory)


def batch_of(arrays: PairArrays, rows: np.ndarray, widths: int = 1) -> PairBatch:
    """These pairs, padded to the smallest of `widths` widths that holds both sides."""
    chosen, rejected = arrays.chosen_lengths_N[rows], arrays.rejected_lengths_N[rows]
    T = width(np.maximum(chosen, rejected), arrays.chosen_NxT.shape[1], widths)
    zero = np.zeros_like(chosen)
    return PairBatch(
        arrays.chosen_NxT[rows, :T],
        span_mask(zero, chosen, T),
        arrays.rejected_NxT[rows, :T],
        span_mask(zero, rejected, T),
    )


def run(config: RewardConfig, label: str = "reward model") -> Path:
    """Trains, or resumes training, and returns the folder of the reward model."""
    required(config, "run", "model", "pairs")
    output = Path(config.run) / "model"
    if begun(config.run, config) and output.exists():
        return output
    tokenizer = Tokenizer.load(config.model)
    check_platform(config.memory.attention, jax.default_backend())
    rows = config.memory.row_counts(config.batch_size, config.optimizer)
    mesh = mesh_for(config.mesh, [architecture_of(config.model)], rows)
    model = load_pretrained(config.model, mesh=mesh)
    model = with_head(model, "reward", nnx.Rngs(config.seed))
    pairs = [pair for pair in read(config.pairs, Pair) if not pair.tie]
    arrays, counts = pair_arrays(pairs, tokenizer, config.max_length)
    folder = claim(config.run, config)
    write_json(folder / "counts.json", counts)
    n = len(arrays.rows_N)
    steps = max(round(config.epochs * n / config.batch_size), 1)
    optimiser = optimizer(config.optimizer, steps)
    lengths_N = np.maximum(arrays.chosen_lengths_N, arrays.rejected_lengths_N)

    def batch_at(i: int) -> PairBatch:
        rows = grouped_order(config.seed, lengths_N, config.batch_size, i)
        return batch_of(arrays, rows, config.widths)

    with on_mesh(mesh):
        state = loop.train(
            folder,
            placed(start(placed(model, mesh), optimiser), mesh),
            partial(step, optimiser=optimiser, l2=config.l2, memory=config.memory),
            batch_at,
            steps,
            label=label,
            checkpoint_every=config.checkpoint_every,
        )
    save_pretrained(state.model, output, tokenizer)
    loop.finish(folder)
    return output
