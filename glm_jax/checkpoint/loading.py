"""Filling a model's weights from a checkpoint, block by block.

Each device's part of each weight is a buffer. Blocks of rows are read by a few threads and written
into their buffers in place, so that the host holds no more than the blocks under way beside what
its own devices hold.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Sharding

from glm_jax.checkpoint.buffers import DeviceBuffer, Extent, HostBuffer
from glm_jax.checkpoint.placement import Matrix, Tensor, declared, matrix
from glm_jax.checkpoint.tensor_files import StoredTensor

BLOCK_BYTES = 2**22  # fits into the cache
THREADS = min(8, os.cpu_count() or 1)


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
      expected: the tensors that make up the weights, see `glm_jax.checkpoint.placement.tensors`.
      stored: where each of them lies.
      shardings, dtypes: of each weight, in the order of `declared`; no sharding: on JAX's default
        device.
      progress: is told of bytes as they are read.
    """
    params = declared(model)
    forms = [matrix(param) for param in params]
    parts = [_parts(p, f, s) for p, f, s in zip(params, forms, shardings, strict=True)]
    make = HostBuffer if _platform(shardings) == "cpu" else DeviceBuffer
    buffers = [
        {part: make(_extent(part, form), form.transposed, dtype, on) for part, on in of.items()}
        for of, form, dtype in zip(parts, forms, dtypes, strict=True)
    ]

    # 64 rows at the least
    largest = max([BLOCK_BYTES, *(_width(stored[name]) * 64 for name in expected)])
    scratch = threading.local()  # fresh memory for each block would cost as much as reading it

    def work(job: Job) -> int:
        if not hasattr(scratch, "memory"):
            scratch.memory = np.empty(largest, np.uint8)
        if forms[job.leaf].vector:
            block = job.stored.read(slice(*job.rows), scratch.memory)[:, None]
        else:
            block = job.stored.read_block(job.rows, job.part.columns, scratch.memory)
        buffers[job.leaf][job.part].write(job.layer, job.start, block)
        return block.nbytes

    for read in _ahead(_jobs(expected, stored, forms, parts), work):
        progress(read)
    for param, of, sharding in zip(params, buffers, shardings, strict=True):
        shape = sharding.shard_shape(param.shape) if sharding else param.shape
        arrays = [array for buffer in of.values() for array in buffer.arrays(shape)]
        of.clear()
        param.set_value(
            jax.make_array_from_single_device_arrays(param.shape, sharding, arrays)
            if sharding else arrays[0]
        )  # fmt: skip


def _platform(shardings: list[Sharding | None]) -> str:
    sharding = shardings[0]
    return next(iter(sharding.device_set)).platform if sharding else jax.default_backend()


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


def _extent(part: Part, form: Matrix) -> Extent:
    """The sizes of a part's buffer."""
    *stack, rows, columns = (cut.stop - cut.start for cut in (*part.stack, part.rows, part.columns))
    return (prod(stack), *((columns, rows) if form.transposed else (rows, columns)))


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
                step = max(BLOCK_BYTES // _width(stored[name]) // 64 * 64, 64)
                first, last = piece.start + part.rows.start, piece.start + part.rows.stop
                for row in range(first, last, step):
                    rows = Range(row, min(row + step, last))
                    yield Job(stored[name], piece.leaf, part, layer, rows, row - first)


def _width(tensor: StoredTensor) -> int:
    """Bytes of a row."""
    return prod(tensor.shape[1:]) * tensor.dtype.itemsize


def _within(stack: tuple[Range, ...], index: tuple[int, ...]) -> int | None:
    """The place of a matrix in the flattened stack that a part holds; None: it is not there."""
    place = 0
    for cut, i in zip(stack, index, strict=True):
        if not cut.start <= i < cut.stop:
            return None
        place = place * (cut.stop - cut.start) + i - cut.start
    return place


def _ahead(jobs: Iterator[Job], work: Callable[[Job], int]) -> Iterator[int]:
    """What `work` returns of each job, in order, while a few threads work ahead."""
    with ThreadPoolExecutor(THREADS) as threads:
        under_way: deque[Future[int]] = deque()
        try:
            for job in jobs:
                under_way.append(threads.submit(work, job))
                if len(under_way) == 2 * THREADS:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)
