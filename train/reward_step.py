"""What a reward model says of pairs, and one step of its training.

Dims: R rows, K places for pairs in a row, W width.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from glm_jax.attention import Attention
from glm_jax.data.pair_batches import PairBatch
from glm_jax.model import GLM
from glm_jax.sharding import replicated, rows_split
from glm_jax.sight import Packed
from glm_jax.train.losses import ranking_loss
from glm_jax.train.scoring import in_dtype
from glm_jax.train.update import WHOLE_BATCH, MemoryConfig, TrainState, update


class Ranking(NamedTuple):
    """What the ranking loss is made of: see `ranking_loss`."""

    l2: float = 0.0
    centring: float = 0.0
    label_smoothing: float = 0.0


def pair_scores(model: GLM, batch: PairBatch) -> tuple[Float[Array, "R K"], Float[Array, "R K"]]:
    """Scores of chosen and rejected, from one forward pass over both."""
    packed = Packed(*(jnp.asarray(x) for x in (batch.text, batch.part, batch.position)))
    scores_RxW = model.scores(jnp.asarray(batch.tokens), packed)
    R, K, _ = batch.ends.shape
    found = jnp.take_along_axis(scores_RxW, jnp.asarray(batch.ends).reshape(R, 2 * K), axis=1)
    found = found.reshape(R, K, 2)
    return found[..., 0], found[..., 1]


@partial(jax.jit, static_argnames=("dtype", "attention"))
def scored(
    model: GLM, batch: PairBatch, *, dtype: str, attention: Attention
) -> tuple[Float[Array, "R K"], Float[Array, "R K"]]:
    """`pair_scores` in the dtype and with the attention of training."""
    return replicated(pair_scores(in_dtype(model, dtype, attention), rows_split(batch)))


@partial(jax.jit, static_argnames=("optimiser", "ranking", "memory"), donate_argnums=0)
def step(
    state: TrainState, batch: PairBatch, *, optimiser, ranking: Ranking,
    memory: MemoryConfig = WHOLE_BATCH,
) -> tuple:  # fmt: skip
    """The update along the weighted mean loss of the batch; `memory.rows` are rows of it."""

    def summed(model: GLM, batch: PairBatch):
        chosen, rejected = pair_scores(model, batch)
        gaps = chosen - rejected
        loss = ranking_loss(chosen, rejected, margin=batch.margin, **ranking._asdict())
        scores = 0.5 * (chosen + rejected)
        squares = 0.5 * (jnp.square(chosen) + jnp.square(rejected))
        terms = {
            "accuracy": 0.5 + 0.5 * jnp.sign(gaps), "margin": gaps, "score": scores,
            "score_square": squares,
        }  # fmt: skip
        # where no pair is, the scores are those of some token, and may be anything
        total = lambda x: jnp.sum(jnp.where(batch.weight > 0, batch.weight * x, 0.0))  # noqa: E731
        return total(loss), {name: total(x) for name, x in terms.items()}

    state, metrics = update(state, summed, batch, jnp.sum(batch.weight), optimiser, memory)
    # a spread about the mean would be a difference of sums over micro-batches: mostly rounding
    size = jnp.sqrt(metrics.pop("score_square"))
    padding = jnp.mean((batch.text == 0).astype(jnp.float32))
    return state, metrics | {"score_size": size, "padding": padding}
