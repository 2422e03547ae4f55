"""AdamW with a schedule and clipping, from optax."""

from functools import cache
from typing import Annotated, Any, Literal

import jax
import optax
from flax import nnx
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from glm_jax.configuration import configuration
from glm_jax.errors import InputError

Decay = Annotated[float, Field(ge=0, lt=1)]


@configuration
class OptimizerConfig:
    learning_rate: NonNegativeFloat
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    "after the warm-up: stay, or fall to zero at the last update"
    warmup_steps: NonNegativeInt = 0
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat | None = 1.0
    "gradients are scaled down to this global norm"

    def check_layerwise(self, path: str) -> None:
        """Raises InputError when the update of a layer would need the gradients of all."""
        if self.max_grad_norm is not None:
            raise InputError(
                f"{path}max_grad_norm: the norm of all gradients is not known while layers update "
                f"one by one; with layerwise set it to null"
            )


def adamw(config: OptimizerConfig, updates: int) -> optax.GradientTransformation:
    """The optimiser of a run of `updates` updates; its schedule counts updates.

    The same arguments give the same object, so that programs compiled with it are found again.
    """
    return _adamw(config, 0 if config.schedule == "constant" else updates)


@cache
def _adamw(config: OptimizerConfig, updates: int) -> optax.GradientTransformation:
    after = max(updates - config.warmup_steps, 1)
    schedule = {
        "constant": optax.constant_schedule(config.learning_rate),
        "cosine": optax.cosine_decay_schedule(config.learning_rate, after),
        "linear": optax.linear_schedule(config.learning_rate, 0.0, after),
    }[config.schedule]
    if config.warmup_steps:
        warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
        schedule = optax.join_schedules([warmup, schedule], [config.warmup_steps])
    steps = [optax.clip_by_global_norm(config.max_grad_norm)] if config.max_grad_norm else []
    steps.append(
        optax.adamw(
            schedule,
            config.beta1,
            config.beta2,
            config.epsilon,
            weight_decay=config.weight_decay,
            mask=_decays,
        )
    )
    return _relaxed(optax.chain(*steps))


def _decays(parameters: Any) -> Any:
    """Whether each weight decays: those that are fixed, whose gradient is 0, do not move at all."""

    def of(leaf):
        decays = not (isinstance(leaf, nnx.Param) and leaf.get_metadata("fixed", False))
        return jax.tree.map(lambda _: decays, leaf)

    return jax.tree.map(of, parameters, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))


def _relaxed(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """optax mixes dtypes, so its two calls, and nothing else, run under standard promotion."""

    def init(parameters):
        with jax.numpy_dtype_promotion("standard"):
            return inner.init(parameters)

    def update(gradients, state, parameters=None):
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(gradients, state, parameters)

    return optax.GradientTransformation(init, update)
