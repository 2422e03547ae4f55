"""Tensors in the files that torch.save writes, without PyTorch.

Such a file is a zip: NAME/data.pkl is a pickle that describes the tensors, and NAME/data/KEY are
their bytes, as they are, so that a tensor is a range of bytes of the file.
"""

import io
import struct
import zipfile
from math import prod

from glm_jax.checkpoint.byte_ranges import ByteRanges
from glm_jax.checkpoint.stored_tensor import StoredTensor, is_shape
from glm_jax.checkpoint.tensor_pickle import PickledTensor, unpickle_tensors
from glm_jax.errors import InputError

_MAX_READ = 2**26  # bytes of a pickle, or of the zip's list of files
_OLD = (
    "was written by PyTorch before 1.6, or is no PyTorch file; where nothing can be harmed, load "
    "it with torch.load(file, weights_only=True) and save it with safetensors.torch.save_file"
)


def bin_tensors(file: str) -> dict[str, StoredTensor]:
    """The tensors of a pytorch_model.bin, of which only the description is read.

    Nothing of its pickle is run. Raises InputError.
    """
    source = ByteRanges(file)
    if source.size < 4 or source.read(0, 4).tobytes() != b"PK\x03\x04":
        raise InputError(f"{file}: {_OLD}")
    entries = _entries(source)
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise InputError(f"{file}: a zip without tensors: has no NAME/data.pkl, or several")
    folder = pickles[0].removesuffix("data.pkl")
    order = entries.get(folder + "byteorder")
    if order and _content(source, order) != b"little":
        raise InputError(f"{file}: its numbers are not little-endian")
    places: dict[str, tuple[int, int]] = {}
    tensors = {}
    for name, tensor in unpickle_tensors(_content(source, entries[pickles[0]]), file).items():
        key = tensor.storage.key
        if key not in places:
            if folder + "data/" + key not in entries:
                raise InputError(f"{file}: tensor {name}: the zip has no data/{key[:200]!r}")
            places[key] = _place(source, entries[folder + "data/" + key])
        tensors[name] = _tensor(source, name, tensor, *places[key])
    return tensors


def _tensor(
    source: ByteRanges, name: str, tensor: PickledTensor, offset: int, size: int
) -> StoredTensor:
    storage, shape = tensor.storage, tensor.shape
    if not is_shape(shape) or len(shape) != len(tensor.strides):
        raise InputError(f"{source.file}: tensor {name}: its shape is none")
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    given = zip(shape, strides, tensor.strides, strict=True)
    if prod(shape) and any(size > 1 and stride != found for size, stride, found in given):
        raise InputError(f"{source.file}: tensor {name}: not contiguous; save it as contiguous()")
    if storage.size * storage.dtype.itemsize != size:
        raise InputError(f"{source.file}: tensor {name}: its storage is not as long as it says")
    if not 0 <= tensor.first <= tensor.first + prod(shape) <= storage.size:
        raise InputError(f"{source.file}: tensor {name}: lies outside its storage")
    offset += tensor.first * storage.dtype.itemsize
    return StoredTensor(source, offset, shape, storage.dtype)


def _entries(source: ByteRanges) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(_Seekable(source)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise InputError(f"{source.file}: not a whole zip ({error}); was it cut off?") from None
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise InputError(
                f"{source.file}: {entry.filename[:200]!r} in it is compressed or encrypted"
            )
    names = {entry.filename: entry for entry in entries}
    if len(names) < len(entries):
        raise InputError(f"{source.file}: a zip with two files of one name")
    return names


def _place(source: ByteRanges, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """Where the content of an entry begins, and its size in bytes."""
    header = source.read(entry.header_offset, 30).tobytes()
    start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
    if header[:4] != b"PK\x03\x04" or start + entry.file_size > source.size:
        raise InputError(f"{source.file}: {entry.filename[:200]!r} in it is damaged or cut off")
    return start, entry.file_size


def _content(source: ByteRanges, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > _MAX_READ:
        raise InputError(f"{source.file}: {entry.filename[:200]!r} in it is too long to be read")
    return source.read(*_place(source, entry)).tobytes()


class _Seekable(io.RawIOBase):
    """What zipfile needs of a file; it reads the list of files in one go, hence the limit."""

    def __init__(self, source: ByteRanges) -> None:
        self._source = source
        self._position = 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}
        if base[whence] + offset < 0:
            raise ValueError("it points before its beginning")
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        rest = max(self._source.size - self._position, 0)
        size = rest if size < 0 else min(size, rest)
        if size > _MAX_READ:
            raise ValueError("its list of files is too long")
        data = self._source.read(self._position, size).tobytes()
        self._position += size
        return data
