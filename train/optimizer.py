"""Optimisers with a schedule and clipping, from optax: AdamW and Adafactor.

Each layer is treated for itself, under `jax.vmap` over a stack: so the layer-wise update, which
has no more than one layer's gradient, takes the same steps.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from glm_jax.configuration import configuration
from glm_jax.errors import InputError
from glm_jax.train.parts import joined, parts, stacks

Decay = Annotated[float, Field(ge=0, lt=1)]
Dtype = Literal["float32", "bfloat16"]

# Settings that mean something to AdamW alone.
ADAMW = "beta1", "beta2", "epsilon", "mu_dtype", "nu_dtype"


@configuration
class OptimizerConfig:
    learning_rate: NonNegativeFloat
    kind: Literal["adamw", "adafactor"] = "adamw"
    "adafactor keeps sums over rows and columns for moments; its steps are in proportion to weights"
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    "after the warm-up: stay, or fall to zero at the last update"
    warmup_steps: NonNegativeInt = 0
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    epsilon: PositiveFloat = 1e-8
    mu_dtype: Dtype = "float32"
    "in which AdamW keeps its first moments"
    nu_dtype: Dtype = "float32"
    "in which AdamW keeps its second moments"
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat | None = 1.0
    "gradients are scaled down to this global norm"
    norm_pass: bool = False
    "with a layer-wise update: a backward pass of its own finds the norm first"

    def __post_init__(self):
        if self.kind == "adafactor":
            for name in ADAMW:
                if getattr(self, name) != getattr(type(self), name):
                    raise InputError(f"{name} means nothing to adafactor; leave it out")
        if self.norm_pass and self.max_grad_norm is None:
            raise InputError("norm_pass: it finds the norm for max_grad_norm, which is null")
        # half of the distance between two bfloat16 numbers is up to 2^-8 of them
        if self.nu_dtype == "bfloat16" and 1 - self.beta2 < 2**-8:
            raise InputError(
                f"nu_dtype bfloat16: with beta2 {self.beta2} a step changes second moments by less "
                f"than they are rounded by; take float32, or a beta2 of at most 0.99"
            )

    def check_layerwise(self, path: str, layerwise: bool = True) -> None:
        """Raises InputError when the update of a layer would need the gradients of all, or where a
        setting means something to layer-wise updates alone."""
        if not layerwise and self.norm_pass:
            raise InputError(f"{path}norm_pass means something to layer-wise updates alone")
        if not layerwise:
            return
        if self.max_grad_norm is not None and not self.norm_pass:
            raise InputError(
                f"{path}max_grad_norm: the norm of all gradients is not known while layers update "
                f"one by one; with layerwise set it to null, or norm_pass to true"
            )


class Optimizer(NamedTuple):
    """optax's two calls for a whole model. Its state is one of each of the model's parts."""

    init: Callable[[Any], dict[str, optax.OptState]]
    update: Callable[..., tuple[Any, dict[str, optax.OptState]]]
    part: optax.GradientTransformation
    "of one part: of a layer, not of a stack"
    max_norm: float | None


def optimizer(config: OptimizerConfig, updates: int) -> Optimizer:
    """The optimiser of a run of `updates` updates; its schedule counts updates.

    The same arguments give the same object, so that programs compiled with it are found again.
    """
    return _optimizer(config, 0 if config.schedule == "constant" else updates)


def scaled(gradients: Any, norm: jax.Array, max_norm: float | None) -> Any:
    """The gradients, brought down to `max_norm` where their `norm` is above (Pascanu et al., 2013).

    `gradients` may be a part of those whose norm it is.
    """
    if max_norm is None:
        return gradients
    norm = norm.astype(jnp.float32)
    factor = jnp.where(norm < max_norm, 1.0, max_norm / norm)
    return jax.tree.map(lambda g: (g.astype(jnp.float32) * factor).astype(g.dtype), gradients)


@cache
def _optimizer(config: OptimizerConfig, updates: int) -> Optimizer:
    part = _relaxed(_part(config, updates))

    def init(model: Any) -> dict[str, optax.OptState]:
        own = parts(model)
        return {n: (jax.vmap(part.init) if n in stacks(model) else part.init)(own[n]) for n in own}

    def update(gradients: Any, state: dict[str, optax.OptState], model: Any):
        if config.max_grad_norm is not None:
            gradients = scaled(gradients, optax.tree.norm(gradients), config.max_grad_norm)
        own, slopes, done = parts(model), parts(gradients), {}
        for name in own:
            one = jax.vmap(part.update) if name in stacks(model) else part.update
            done[name] = one(slopes[name], state[name], own[name])
        updates = joined(model, {name: pair[0] for name, pair in done.items()})
        return updates, {name: pair[1] for name, pair in done.items()}

    return Optimizer(init, update, part, config.max_grad_norm)


def _part(config: OptimizerConfig, updates: int) -> optax.GradientTransformation:
    if config.kind == "adafactor":
        steps = [
            _plain(optax.scale_by_factored_rms()),
            optax.clip_by_block_rms(1.0),
            optax.scale_by_param_block_rms(),
        ]
    else:
        adam = optax.scale_by_adam(
            config.beta1, config.beta2, config.epsilon, mu_dtype=config.mu_dtype
        )
        steps = [_kept(adam, config.nu_dtype)]
    return optax.chain(
        *steps,
        optax.add_decayed_weights(config.weight_decay, mask=_decays),
        optax.scale_by_learning_rate(_schedule(config, updates)),
    )


def _schedule(config: OptimizerConfig, updates: int) -> optax.Schedule:
    after = max(updates - config.warmup_steps, 1)
    schedule = {
        "constant": optax.constant_schedule(config.learning_rate),
        "cosine": optax.cosine_decay_schedule(config.learning_rate, after),
        "linear": optax.linear_schedule(config.learning_rate, 0.0, after),
    }[config.schedule]
    if not config.warmup_steps:
        return schedule
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, schedule], [config.warmup_steps])


def _decays(parameters: Any) -> Any:
    """Whether each weight decays: those that are fixed, whose gradient is 0, do not move at all."""

    def of(leaf):
        decays = not (isinstance(leaf, nnx.Param) and leaf.get_metadata("fixed", False))
        return jax.tree.map(lambda _: decays, leaf)

    return jax.tree.map(of, parameters, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))


def _kept(adam: optax.GradientTransformation, dtype: str) -> optax.GradientTransformation:
    """Adam whose second moments are kept in a dtype, and computed in float32."""

    def in_dtype(state, dtype):
        return state._replace(nu=optax.tree.cast(state.nu, dtype))

    def update(gradients, state, parameters=None):
        updates, state = adam.update(gradients, in_dtype(state, "float32"), parameters)
        return updates, in_dtype(state, dtype)

    return optax.GradientTransformation(lambda p: in_dtype(adam.init(p), dtype), update)


def _plain(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same over plain arrays: sums over rows are no weights, and have no axes like theirs."""

    def update(gradients, state, parameters):
        leaves, structure = jax.tree.flatten(gradients)
        updates, state = inner.update(leaves, state, jax.tree.leaves(parameters))
        return structure.unflatten(updates), state

    return optax.GradientTransformation(lambda p: inner.init(jax.tree.leaves(p)), update)


def _relaxed(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """optax mixes dtypes, so its two calls, and nothing else, run under standard promotion."""

    def init(parameters):
        with jax.numpy_dtype_promotion("standard"):
            return inner.init(parameters)

    def update(gradients, state, parameters=None):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = inner.update(gradients, state, parameters)
            return optax.tree.cast_like(updates, gradients), state

    return optax.GradientTransformation(init, update)
