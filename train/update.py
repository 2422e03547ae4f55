"""One update of a model's weights, in as much memory as there is.

Dims: B rows of a batch, M of a micro-batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from pydantic import PositiveInt

from glm_jax.attention import Attention, check_dtype
from glm_jax.configuration import configuration
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.sharding import laid_out, rows_split
from glm_jax.stack import Remat
from glm_jax.train import layerwise
from glm_jax.train.optimizer import Optimizer, OptimizerConfig
from glm_jax.train.scoring import in_dtype

Metrics = dict[str, Float[Array, ""]]
Loss = Callable[[GLM, Any], tuple[Float[Array, ""], Metrics]]


@configuration
class MemoryConfig:
    """How the forward and backward passes trade memory for time, and precision for both."""

    compute: Literal["float32", "bfloat16"] | None = None
    "dtype of both passes; None: float32 on a CPU, bfloat16 on accelerators"
    attention: Attention = "plain"
    "of whole texts: plain, or by a kernel, which keeps no scores: splash on TPUs, cudnn on GPUs"
    remat: Remat = "none"
    "what the backward pass computes again of each layer: none, full, or all but products"
    rows: PositiveInt | None = None
    "rows of a batch that go through the backward pass at a time; None: all"
    log_prob_chunk: PositiveInt | None = None
    "tokens of a text that have logits in memory at a time; None: all"
    layerwise: bool = False
    "each layer's weights move as soon as its gradient is known, which is never in memory whole"

    def __post_init__(self):
        check_dtype(self.attention, self.compute)

    @property
    def compute_dtype(self) -> str:
        return self.compute or default_compute()

    def row_counts(self, batch_size: int, optimizer: OptimizerConfig) -> dict[str, int]:
        """Rows that go through the model together, by the keys that say so.

        Raises InputError unless micro-batches make up a batch, and where a layer-wise update
        cannot be.
        """
        optimizer.check_layerwise("optimizer.", self.layerwise)
        if self.layerwise:
            check_layerwise(self.remat, "memory.layerwise")
            if self.rows is not None:
                raise InputError("memory.layerwise: a batch goes through whole; leave out rows")
        if self.rows is not None and batch_size % self.rows:
            raise InputError(f"memory.rows ({self.rows}) must divide batch_size ({batch_size})")
        return {"batch_size": batch_size, "memory.rows": self.rows or batch_size}

    def of_rows(self, rows: int, of: int) -> "MemoryConfig":
        """The same for a batch of `of` rows, so many of which go through at a time."""
        return dataclasses.replace(self, rows=None if rows == of else rows)


WHOLE_BATCH = MemoryConfig()


def default_compute() -> str:
    """The dtype of forward and backward passes where none is given."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def check_layerwise(remat: Remat, name: str) -> None:
    """Raises InputError when more of a layer would be kept than its input."""
    if remat == "products":
        raise InputError(f"{name}: it keeps the input of a layer alone; leave out remat products")


class TrainState(NamedTuple):
    """All that a run of SFT, reward or DPO training carries from step to step."""

    model: GLM
    optimiser: dict[str, optax.OptState]


def start(model: GLM, optimiser: Optimizer) -> TrainState:
    """A run's first state; on a mesh moments are made where their weights lie, not whole."""
    return TrainState(model, jax.jit(lambda model: laid_out(optimiser.init(model)))(model))


def update(
    state: TrainState,
    loss: Loss,
    batch: Any,
    count: Float[Array, ""] | float,
    optimiser: Optimizer,
    memory: MemoryConfig,
) -> tuple[TrainState, Metrics]:
    """The gradient of the mean loss, and the optimiser's step along it.

    If the loss or the gradient is not finite, weights, moments and schedules stay as they were.
    `loss(model, rows)` gives sums, of the loss and of metrics, over rows of the batch, of which
    the means are taken over `count`: micro-batches change nothing.
    """

    def backward(rows: Any) -> tuple[GLM, Metrics]:
        def part(model: GLM):
            model = in_dtype(model, memory.compute_dtype, memory.attention)
            model = model.rematerialised(memory.remat)
            value, sums = loss(model, rows_split(rows))
            return value / count, sums

        (value, sums), gradients = jax.value_and_grad(part, has_aux=True)(state.model)
        return laid_out(gradients), {"loss": value} | {n: x / count for n, x in sums.items()}

    if memory.layerwise:

        def whole(model: GLM):
            value, sums = loss(model, rows_split(batch))
            return value / count, {name: total / count for name, total in sums.items()}

        done = layerwise.update(
            whole, state.model, state.optimiser, optimiser, memory.compute_dtype, memory.attention
        )
        metrics = {"loss": done.value, **done.aux, "grad_norm": done.norm}
        return TrainState(done.model, done.optimiser), metrics
    B = jax.tree.leaves(batch)[0].shape[0]
    M = memory.rows or B
    if M == B:
        gradients, metrics = backward(batch)
    else:
        parts = jax.tree.map(lambda x: x.reshape(-1, M, *x.shape[1:]), batch)
        shapes = jax.eval_shape(backward, jax.tree.map(lambda x: x[0], parts))
        zeros = laid_out(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))

        def add(total, rows):
            return jax.tree.map(jnp.add, total, backward(rows)), None

        (gradients, metrics), _ = jax.lax.scan(add, zeros, parts)
    updates, moments = optimiser.update(gradients, state.optimiser, state.model)
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
    new = TrainState(optax.apply_updates(state.model, updates), moments)
    new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
    return laid_out(new), metrics | {"grad_norm": norm}
