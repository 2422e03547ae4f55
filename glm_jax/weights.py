"""One declaration per weight, from which all else about it derives."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

Initializer = Callable[[jax.Array, tuple[int, ...], jnp.dtype], jax.Array]
normal = nnx.initializers.normal
zeros = nnx.initializers.zeros
ones = nnx.initializers.ones


def fan_in(inputs: int, gain: float = 1.0) -> Initializer:
    """Normal with std gain / sqrt(inputs): outputs of unit size from inputs of unit size."""
    return normal(gain * inputs**-0.5)


class Place(NamedTuple):
    """Part `part` of the rows of the tensor `name`.

    `{layer}` and `{expert}` in the name stand for the indices of a stacked weight's leading
    dimensions.
    """

    name: str
    part: int = 0


class Disk(NamedTuple):
    """Where a weight lies in a checkpoint, under each naming that there is.

    The weight's first `inputs` dimensions are the tensor's columns and the others its rows, as
    PyTorch stores a linear layer [out, in]; a vector has no inputs, and None takes the weight as
    it is.
    """

    inputs: int | None
    transformers: Place
    chatglm: Place | None = None
    "in the releases with remote code; None: a weight that they do not have"


def weight(
    rngs: nnx.Rngs,
    shape: tuple[int, ...],
    axes: tuple[str, ...],
    init: Initializer,
    disk: Disk,
    *,
    fixed: bool = False,
) -> nnx.Param:
    """Declares a weight: its shape, logical axes, initialiser and places on disk, once.

    `fixed`: training leaves it as it is, and loading in the dtype that it was stored in.
    """
    value = init(rngs.params(), shape, jnp.float32)
    return nnx.Param(value, axes=axes, disk=disk, fixed=fixed)
