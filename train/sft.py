"""Supervised fine-tuning: the next-token loss on what the assistant wrote."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int
from pydantic import NonNegativeInt, PositiveInt

from glm_jax.attention import check_platform
from glm_jax.checkpoint.pretrained import architecture_of, save_pretrained
from glm_jax.config import GLMConfig
from glm_jax.configuration import configuration, required
from glm_jax.data.batches import SFTArrays, grouped_order, sft_arrays, span_mask, width
from glm_jax.data.records import Dialogue, read
from glm_jax.errors import InputError
from glm_jax.mesh import MeshConfig, mesh_for, on_mesh
from glm_jax.model import GLM
from glm_jax.sharding import placed
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import loop
from glm_jax.train.losses import Total, next_token_loss
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.policy import load_policy
from glm_jax.train.run_folder import begun, claim, write_json
from glm_jax.train.scoring import spoken, states_before
from glm_jax.train.update import WHOLE_BATCH, MemoryConfig, TrainState, start, update


@configuration
class SFTConfig:
    run: str = ""
    "the run's folder; the model comes to lie in its subfolder `model`"
    data: tuple[str, ...] = ()
    "files of dialogues"
    model: str = ""
    "folder of the model to start from; without one, a new model of `architecture` starts"
    architecture: GLMConfig = GLMConfig()
    "shape of a new model; its vocabulary and stop tokens are the tokenizer's"
    tokenizer: str = ""
    "folder of the tokenizer; the model's own by default"
    max_length: PositiveInt = 256
    "tokens of prompt and response together"
    widths: PositiveInt = 4
    "widths that batches are padded to; each is compiled once"
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 64
    mesh: MeshConfig = MeshConfig()
    memory: MemoryConfig = MemoryConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-3)
    checkpoint_every: PositiveInt = 100
    seed: NonNegativeInt = 0


class SFTBatch(NamedTuple):
    """Right-padded dialogues; `loss_mask` is True on what the assistant wrote, EOS included."""

    tokens: Int[Array, "B T"]
    mask: Bool[Array, "B T"]
    loss_mask: Bool[Array, "B T"]


def loss(model: GLM, batch: SFTBatch, chunk: int | None = None) -> Total:
    """Summed next-token loss of the responses, and their number of tokens; `chunk` tokens of a text
    have logits in memory at a time."""
    T = batch.tokens.shape[1]
    return loss_in(model, states_before(model, batch.tokens, batch.mask, T - 1), batch, chunk)


def loss_in(
    model: GLM, states_BxTxD: Float[Array, "B T D"], batch: SFTBatch, chunk: int | None = None
) -> Total:
    """The same, given the states in which all tokens but the first were chosen."""
    log_probs_BxT = spoken(model, states_BxTxD, batch.tokens[:, 1:], chunk=chunk).log_probs
    return next_token_loss(log_probs_BxT, batch.loss_mask[:, 1:])


@partial(jax.jit, static_argnames=("optimiser", "memory"), donate_argnums=0)
def step(
    state: TrainState, batch: SFTBatch, *, optimiser, memory: MemoryConfig = WHOLE_BATCH
) -> tuple:
    tokens = jnp.sum(batch.loss_mask[:, 1:], dtype=jnp.float32)

    def summed(model: GLM, rows: SFTBatch):
        return loss(model, rows, memory.log_prob_chunk).sum, {}

    state, metrics = update(state, summed, batch, jnp.maximum(tokens, 1.0), optimiser, memory)
    return state, metrics | {"tokens": tokens}


def batch_of(arrays: SFTArrays, rows: np.ndarray, widths: int = 1) -> SFTBatch:
    """These rows, padded to the smallest of `widths` widths that holds them."""
    lengths, starts = arrays.lengths_N[rows], arrays.prompt_lengths_N[rows]
    T = width(lengths, arrays.tokens_NxT.shape[1], widths)
    mask = span_mask(np.zeros_like(lengths), lengths, T)
    return SFTBatch(arrays.tokens_NxT[rows, :T], mask, span_mask(starts, lengths, T))


def run(config: SFTConfig) -> Path:
    """Trains, or resumes training, and returns the folder of the model."""
    required(config, "run", "data")
    output = Path(config.run) / "model"
    if begun(config.run, config) and output.exists():
        return output
    model, tokenizer, mesh = _start(config)
    dialogues = [row for file in config.data for row in read(file, Dialogue)]
    arrays, counts = sft_arrays(dialogues, tokenizer, config.max_length)
    folder = claim(config.run, config)
    write_json(folder / "counts.json", counts)
    optimiser = optimizer(config.optimizer, config.steps)

    def batch_at(i: int) -> SFTBatch:
        rows = grouped_order(config.seed, arrays.lengths_N, config.batch_size, i)
        return batch_of(arrays, rows, config.widths)

    with on_mesh(mesh):
        state = loop.train(
            folder,
            placed(start(placed(model, mesh), optimiser), mesh),
            partial(step, optimiser=optimiser, memory=config.memory),
            batch_at,
            config.steps,
            label="supervised fine-tuning",
            checkpoint_every=config.checkpoint_every,
        )
    save_pretrained(state.model, output, tokenizer)
    loop.finish(folder)
    return output


def _start(config: SFTConfig) -> tuple[GLM, Tokenizer, Mesh | None]:
    check_platform(config.memory.attention, jax.default_backend())
    rows = config.memory.row_counts(config.batch_size, config.optimizer)
    if config.model:
        mesh = mesh_for(config.mesh, [architecture_of(config.model)], rows)
        return *load_policy(config.model, tokenizer=config.tokenizer, mesh=mesh), mesh
    if not config.tokenizer:
        raise InputError("sft: give `model`, or `tokenizer` (and `architecture`) for a new model")
    tokenizer = Tokenizer.load(config.tokenizer)
    architecture = architecture_for(tokenizer, config)
    mesh = mesh_for(config.mesh, [architecture], rows)
    return GLM(architecture, nnx.Rngs(config.seed)), tokenizer, mesh


def architecture_for(tokenizer: Tokenizer, config: SFTConfig) -> GLMConfig:
    """That of a new model which speaks with the tokenizer."""
    return dataclasses.replace(
        config.architecture,
        vocab_size=tokenizer.vocab_size,
        eos_token_id=tokenizer.stop_ids,
        pad_token_id=tokenizer.pad_id,
    )
