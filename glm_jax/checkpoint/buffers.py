"""Memory in which a weight comes together, block by block, before it is an array of JAX's.

A buffer is a stack of matrices [columns, rows] for a weight that is transposed on the way in, or
[rows, columns] for one that is not. Any thread may write; blocks do not overlap.
"""

import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

Extent = tuple[int, int, int]
STRIP = 64  # rows that are turned at a time: they fit into the cache


class HostBuffer:
    """NumPy's memory, which JAX's CPU devices take over as it is.

    NumPy asks the system for large pages. Zeroing 12 GB of small ones takes longer than reading
    the files, and XLA for CPU updates bfloat16 in place only by way of a float32 copy.
    """

    def __init__(
        self, extent: Extent, turned: bool, dtype: np.dtype, devices: list[jax.Device | None]
    ):
        self._turned, self._devices = turned, devices
        self._data = _aligned(extent, dtype)

    def write(self, layer: int, start: int, block: Shaped[np.ndarray, "R C"]) -> None:
        matrix = self._data[layer]
        if not self._turned:
            matrix[start : start + len(block)] = block
            return
        for i in range(0, len(block), STRIP):
            strip = block[i : i + STRIP].astype(matrix.dtype, copy=False)
            _bits(matrix)[:, start + i : start + i + len(strip)] = _bits(strip).T

    def arrays(self, shape: tuple[int, ...]) -> list[jax.Array]:
        """The buffer on each of its devices; it must not be written to any more."""
        return [jax.device_put(self._data.reshape(shape), device) for device in self._devices]


class DeviceBuffer:
    """Memory of the devices themselves, updated in place."""

    def __init__(
        self, extent: Extent, turned: bool, dtype: np.dtype, devices: list[jax.Device | None]
    ):
        self._turned, self._devices, self._lock = turned, devices, threading.Lock()
        self._copies = [jnp.zeros(extent, dtype, device=device) for device in devices]

    def write(self, layer: int, start: int, block: Shaped[np.ndarray, "R C"]) -> None:
        if self._turned:
            turned = np.empty(block.shape[::-1], block.dtype)
            for i in range(0, len(block), STRIP):
                _bits(turned)[:, i : i + STRIP] = _bits(block[i : i + STRIP]).T
            block = turned
        at = (layer, 0, start) if self._turned else (layer, start, 0)
        with self._lock:
            for i, device in enumerate(self._devices):
                self._copies[i] = _update(self._copies[i], jax.device_put(block[None], device), at)
            jax.block_until_ready(self._copies)  # so that blocks do not queue up

    def arrays(self, shape: tuple[int, ...]) -> list[jax.Array]:
        """The buffer on each of its devices, which it then leaves."""
        return [_reshaped(self._copies.pop(0), shape) for _ in self._devices]


def _aligned(shape: Extent, dtype: np.dtype) -> np.ndarray:
    """Memory as XLA wants it, so that it is shared and not copied."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + size].view(dtype).reshape(shape)


def _bits(x: np.ndarray) -> np.ndarray:
    """The same numbers as integers, which NumPy copies faster than bfloat16."""
    return x.view(f"u{x.dtype.itemsize}")


@partial(jax.jit, donate_argnums=0)
def _update(
    buffer: Shaped[Array, "S I O"],
    block: Shaped[Array, "1 I2 O2"],
    at: tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""]],
) -> Shaped[Array, "S I O"]:
    return jax.lax.dynamic_update_slice(buffer, block.astype(buffer.dtype), at)


@partial(jax.jit, donate_argnums=0, static_argnames="shape")
def _reshaped(buffer: Shaped[Array, "S I O"], shape: tuple[int, ...]) -> jax.Array:
    return buffer.reshape(shape)
