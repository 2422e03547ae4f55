"""Filling a model's weights from a checkpoint, block by block.

Each device's part of each weight is a buffer on that device. Blocks of rows are read and
transposed by a few threads and written into their buffers in place, so that the host holds no more
than the blocks under way.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding
from jaxtyping import Array, Int, Shaped

from glm_jax.placement import Matrix, Tensor, declared, matrix
from glm_jax.tensor_files import StoredTensor

BLOCK_BYTES = 2**24
THREADS = 2
AHEAD = 4


class Range(NamedTuple):
    start: int
    stop: int


class Part(NamedTuple):
    """What some devices hold of a weight: a range of each stacked dimension, rows and columns."""

    stack: tuple[Range, ...]
    rows: Range
    columns: Range


class Job(NamedTuple):
    """Rows of a stored tensor that go into one layer of one weight's buffers."""

    stored: StoredTensor
    leaf: int
    part: Part
    layer: int
    "which of the buffer's stacked matrices"
    rows: Range
    "of the stored tensor"
    start: int
    "the first of them in the buffer"


def fill(
    model,
    expected: dict[str, Tensor],
    stored: dict[str, StoredTensor],
    shardings: list[Sharding | None],
    dtypes: list[np.dtype],
    progress: Callable[[int], None],
) -> None:
    """Gives every weight of an abstract model its values.

    Args:
      expected: the tensors that make up the weights, see `glm_jax.placement.tensors`.
      stored: where each of them lies.
      shardings, dtypes: of each weight, in the order of `declared`; no sharding: on JAX's default
        device.
      progress: is told of bytes as they are read.
    """
    params = declared(model)
    forms = [matrix(param) for param in params]
    parts = [_parts(p, f, s) for p, f, s in zip(params, forms, shardings, strict=True)]
    buffers = [
        {
            part: [_blank(_extent(part), form.transposed, dtype, device) for device in devices]
            for part, devices in of.items()
        }
        for of, form, dtype in zip(parts, forms, dtypes, strict=True)
    ]
    jobs = _jobs(expected, stored, forms, parts)
    for job, block in _ahead(jobs, lambda job: _read(job, forms[job.leaf])):
        copies = buffers[job.leaf][job.part]
        at = (job.layer, 0, job.start) if forms[job.leaf].transposed else (job.layer, job.start, 0)
        for i, device in enumerate(parts[job.leaf][job.part]):
            copies[i] = _write(copies[i], jax.device_put(block, device), at)
        jax.block_until_ready(copies)
        progress(block.nbytes)
    for param, copies, sharding in zip(params, buffers, shardings, strict=True):
        shape = sharding.shard_shape(param.shape) if sharding else param.shape
        arrays = [_shaped(buffer, shape) for of in copies.values() for buffer in of]
        param.set_value(
            jax.make_array_from_single_device_arrays(param.shape, sharding, arrays)
            if sharding else arrays[0]
        )  # fmt: skip


def _parts(
    param: nnx.Param, form: Matrix, sharding: Sharding | None
) -> dict[Part, list[jax.Device | None]]:
    """What this process's devices hold of a weight; devices with equal parts together."""
    found: dict[Part, list[jax.Device | None]] = {}
    depth, inputs = len(form.stack), param.get_metadata("disk").inputs
    whole = (slice(None),) * len(param.shape)
    held = sharding.addressable_devices_indices_map(param.shape) if sharding else {None: whole}
    for device, index in held.items():
        ranges = [
            Range(*cut.indices(size)[:2]) for cut, size in zip(index, param.shape, strict=True)
        ]
        split = depth + (1 if inputs is None else inputs)
        front = _flat(ranges[depth:split], param.shape[depth:split])
        back = _flat(ranges[split:], param.shape[split:])
        rows, columns = (back, front) if form.transposed else (front, back)
        found.setdefault(Part(tuple(ranges[:depth]), rows, columns), []).append(device)
    return found


def _flat(ranges: list[Range], shape: tuple[int, ...]) -> Range:
    """The range of flattened dimensions of which only the first is cut."""
    if not ranges:
        return Range(0, 1)
    inner = prod(shape[1:])
    return Range(ranges[0].start * inner, ranges[0].stop * inner)


def _extent(part: Part) -> tuple[int, int, int]:
    """Matrices, rows and columns of a part."""
    size = [cut.stop - cut.start for cut in (*part.stack, part.rows, part.columns)]
    return prod(size[:-2]), size[-2], size[-1]


def _jobs(
    expected: dict[str, Tensor],
    stored: dict[str, StoredTensor],
    forms: list[Matrix],
    parts: list[dict[Part, list[jax.Device | None]]],
) -> Iterator[Job]:
    """All there is to read, in the order of the files."""
    for name in sorted(expected, key=lambda name: (stored[name].file, stored[name].offset)):
        for piece in expected[name].pieces:
            for part in parts[piece.leaf]:
                layer = _within(part.stack, piece.index)
                if layer is None:
                    continue
                width = forms[piece.leaf].columns * stored[name].dtype.itemsize
                step = max(BLOCK_BYTES // width // 64 * 64, 64)
                first, last = piece.start + part.rows.start, piece.start + part.rows.stop
                for row in range(first, last, step):
                    rows = Range(row, min(row + step, last))
                    yield Job(stored[name], piece.leaf, part, layer, rows, row - first)


def _within(stack: tuple[Range, ...], index: tuple[int, ...]) -> int | None:
    """The place of a matrix in the flattened stack that a part holds; None: it is not there."""
    place = 0
    for cut, i in zip(stack, index, strict=True):
        if not cut.start <= i < cut.stop:
            return None
        place = place * (cut.stop - cut.start) + i - cut.start
    return place


def _read(job: Job, form: Matrix) -> np.ndarray:
    """One matrix of a block, as the buffer has it: [1, columns, rows] or [1, rows, columns]."""
    block = job.stored.read(slice(*job.rows))
    if form.vector:
        return block[None, None]
    block = block[:, slice(*job.part.columns)]
    return transposed(block)[None] if form.transposed else np.ascontiguousarray(block)[None]


def transposed(block: np.ndarray) -> np.ndarray:
    """A contiguous copy of block.T: strips that fit into the cache are ten times as fast."""
    bits = block.view(f"u{block.dtype.itemsize}")
    turned = np.empty(bits.shape[::-1], bits.dtype)
    for i in range(0, len(bits), 64):
        turned[:, i : i + 64] = bits[i : i + 64].T
    return turned.view(block.dtype)


def _ahead(
    jobs: Iterator[Job], work: Callable[[Job], np.ndarray]
) -> Iterator[tuple[Job, np.ndarray]]:
    """Each job with its result, in order, a few being worked on ahead."""
    with ThreadPoolExecutor(THREADS) as threads:
        under_way: deque[tuple[Job, Future[np.ndarray]]] = deque()
        try:
            for job in jobs:
                under_way.append((job, threads.submit(work, job)))
                if len(under_way) == AHEAD:
                    first, future = under_way.popleft()
                    yield first, future.result()
            while under_way:
                first, future = under_way.popleft()
                yield first, future.result()
        finally:
            threads.shutdown(cancel_futures=True)


def _blank(
    extent: tuple[int, int, int], transposed: bool, dtype: np.dtype, device: jax.Device | None
) -> jax.Array:
    matrices, rows, columns = extent
    shape = (matrices, columns, rows) if transposed else (matrices, rows, columns)
    return jnp.zeros(shape, dtype, device=device)


@partial(jax.jit, donate_argnums=0)
def _write(
    buffer: Shaped[Array, "S I O"],
    block: Shaped[Array, "1 I2 O2"],
    at: tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""]],
) -> Shaped[Array, "S I O"]:
    return jax.lax.dynamic_update_slice(buffer, block.astype(buffer.dtype), at)


@partial(jax.jit, donate_argnums=0, static_argnums=1)
def _shaped(buffer: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return buffer.reshape(shape)
