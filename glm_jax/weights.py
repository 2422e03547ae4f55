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


class Disk(NamedTuple):
    """Where a weight lies in a checkpoint: part `part` of the rows of the tensor `name`.

    The weight's first `inputs` dimensions are the tensor's columns and the others its rows, as
    PyTorch stores a linear layer [out, in]; a vector has no inputs, and None takes the weight as
    it is.
    """

    name: str
    inputs: int | None = 0
    part: int = 0


def weight(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], init: Initializer, disk: Disk
) -> nnx.Param:
    """Declares a weight: its shape, logical axes, initialiser and place on disk, once."""
    return nnx.Param(init(rngs.params(), shape, jnp.float32), axes=axes, disk=disk)
