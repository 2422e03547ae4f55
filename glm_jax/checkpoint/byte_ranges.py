"""Any range of bytes of a file, local or remote, from any thread."""

import os
import weakref

import numpy as np
from etils import epath

from glm_jax.errors import InputError

_LOCAL_PIECE = 2**30  # one system call reads less than 2 GiB
_REMOTE_PIECE = 2**25  # this much lies in memory twice, while it is copied


class ByteRanges:
    """A file from which ranges of bytes are read.

    A local file is opened once, and closed when nothing refers to this any more: if another takes
    its name in the meantime, the old one is still read. A remote file is opened for each range,
    since an open one keeps in memory what it has read ahead.

    Raises InputError when there is no such file.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._descriptor: int | None = None
        if "://" in file:
            try:
                self.size: int = epath.Path(file).stat().length
            except FileNotFoundError:
                raise InputError(f"{file}: no such file") from None
        elif os.path.isfile(file):  # opening a pipe would wait for a writer
            self._descriptor = os.open(file, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
            self.size = os.fstat(self._descriptor).st_size
        else:
            raise InputError(f"{file}: no such file")

    def read(self, offset: int, size: int, memory: np.ndarray | None = None) -> np.ndarray:
        """The `size` bytes from `offset` on, uint8 [size]: a new array, or the first of `memory`.

        Raises InputError when the file does not have them.
        """
        if not 0 <= offset <= offset + size <= self.size:
            raise self._too_short(offset + size)
        data = np.empty(size, np.uint8) if memory is None else memory[:size]
        if self._descriptor is None:
            self._read_remote(data.data, offset)
        else:
            self._read_local(self._descriptor, data.data, offset)
        return data

    def read_strided(
        self, offset: int, count: int, size: int, stride: int, memory: np.ndarray | None = None
    ) -> np.ndarray:
        """`size` bytes at `offset` and at every `stride` bytes after it: uint8 [count, size].

        Of a local file these bytes alone are read; of a remote one all from the first to the last,
        since a request takes longer than what lies between.
        """
        span = (count - 1) * stride + size if count else 0
        if self._descriptor is None:
            rows = np.zeros(count * stride, np.uint8)
            rows[:span] = self.read(offset, span)
            return rows.reshape(count, stride)[:, :size]
        if not 0 <= offset <= offset + span <= self.size:
            raise self._too_short(offset + span)
        data = np.empty(count * size, np.uint8) if memory is None else memory[: count * size]
        data = data.reshape(count, size)
        for i in range(count):
            self._read_local(self._descriptor, data[i].data, offset + i * stride)
        return data

    def _read_local(self, descriptor: int, buffer: memoryview, offset: int) -> None:
        end = offset + len(buffer)
        while buffer:
            count = os.preadv(descriptor, [buffer[:_LOCAL_PIECE]], offset)
            if not count:
                raise self._too_short(end)
            buffer, offset = buffer[count:], offset + count

    def _read_remote(self, buffer: memoryview, offset: int) -> None:
        end = offset + len(buffer)
        with epath.Path(self.file).open("rb") as file:
            file.seek(offset)
            while buffer:
                piece = file.read(min(len(buffer), _REMOTE_PIECE))
                if not piece:
                    raise self._too_short(end)
                buffer[: len(piece)] = piece
                buffer = buffer[len(piece) :]

    def _too_short(self, end: int) -> InputError:
        return InputError(f"{self.file}: is too short: byte {end} is wanted; was it cut off?")
