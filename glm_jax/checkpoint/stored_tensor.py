"""A tensor in a file: where it lies, what it is, and any of its rows when they are needed."""

import reprlib
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from glm_jax.checkpoint.byte_ranges import ByteRanges
from glm_jax.errors import InputError


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in row-major order from byte `offset` of a file on, little-endian."""

    source: ByteRanges
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def file(self) -> str:
        return self.source.file

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def read(self, rows: slice = slice(None), memory: np.ndarray | None = None) -> np.ndarray:
        """The tensor, or a range of its first dimension: a new array with the file's bytes.

        Memory is taken for the result alone, or is `memory`, bytes enough for it. Raises InputError
        when the file is too short.
        """
        shape, first = self.shape, 0
        if rows != slice(None):
            first, end, step = rows.indices(shape[0])
            if step != 1:
                raise ValueError(f"{self.file}: rows are read one after the other, got {rows}")
            shape = (max(end - first, 0), *shape[1:])
        offset = self.offset + first * prod(shape[1:]) * self.dtype.itemsize
        data = self.source.read(offset, prod(shape) * self.dtype.itemsize, memory)
        return data.view(self.dtype).reshape(shape)

    def read_block(
        self, rows: tuple[int, int], columns: tuple[int, int], memory: np.ndarray | None = None
    ) -> np.ndarray:
        """Rows and columns, each from the first to before the last, of a matrix; see `read`."""
        (first, last), (left, right), width = rows, columns, self.shape[1]
        if not 0 <= left <= right <= width:
            raise ValueError(f"{self.file}: there are {width} columns, got {columns}")
        if (left, right) == (0, width):
            return self.read(slice(first, last), memory)
        item = self.dtype.itemsize
        offset = self.offset + (first * width + left) * item
        size = (right - left) * item
        data = self.source.read_strided(offset, last - first, size, width * item, memory)
        return np.ascontiguousarray(data).view(self.dtype)


def is_shape(value: Any) -> bool:
    """Whether `value` lists the sizes of an array that NumPy could address, even an empty one."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= 32
        and all(type(size) is int and size >= 0 for size in value)
        and prod(max(size, 1) for size in value) < 2**60
    )


def check_name(name: Any, file: str) -> None:
    """Raises InputError unless `name`, read from `file`, can be said in a message as it is."""
    if not (isinstance(name, str) and 0 < len(name) <= 1000 and name.isprintable()):
        raise InputError(f"{file}: {reprlib.repr(name)} is not the name of a tensor")
