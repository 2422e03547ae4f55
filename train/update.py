"""One update of a model's weights."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, Float

from glm_jax.model import GLM

Metrics = dict[str, Float[Array, ""]]


class TrainState(NamedTuple):
    """All that a run of SFT, reward or DPO training carries from step to step."""

    model: GLM
    optimiser: optax.OptState


def start(model: GLM, optimiser: optax.GradientTransformation) -> TrainState:
    return TrainState(model, optimiser.init(model))


def update(
    state: TrainState,
    loss: Callable[[GLM], tuple[Float[Array, ""], Metrics]],
    optimiser: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:
    """The gradient of the loss, and the optimiser's step along it."""
    (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.model)
    updates, moments = optimiser.update(gradients, state.optimiser, state.model)
    norm = optax.tree.norm(gradients)
    model = optax.apply_updates(state.model, updates)
    return TrainState(model, moments), {"loss": value, "grad_norm": norm, **metrics}
