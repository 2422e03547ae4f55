"""Files of safetensors: listing their tensors, and writing them in shards.

A file is the length of its header (8 bytes, little-endian), the header (JSON: of each tensor its
dtype, shape and range of bytes), and the tensors without gaps. Source: the format of
github.com/huggingface/safetensors; its reader has no remote files.
"""

import json
import reprlib
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from glm_jax.checkpoint.byte_ranges import ByteRanges
from glm_jax.checkpoint.stored_tensor import StoredTensor, check_name, is_shape
from glm_jax.checkpoint.strict_json import parse_json
from glm_jax.errors import InputError

SHARD_BYTES = 5 * 10**9
_MAX_HEADER = 100_000_000
_DTYPES = {
    "BOOL": np.dtype(bool),
    "U8": np.dtype("uint8"),
    "I8": np.dtype("int8"),
    "U16": np.dtype("uint16"),
    "I16": np.dtype("int16"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "U32": np.dtype("uint32"),
    "I32": np.dtype("int32"),
    "F32": np.dtype("float32"),
    "U64": np.dtype("uint64"),
    "I64": np.dtype("int64"),
    "F64": np.dtype("float64"),
}


def safetensors_tensors(file: str) -> dict[str, StoredTensor]:
    """The tensors of a file, of which only the header is read. Raises InputError."""
    source = ByteRanges(file)
    length = int.from_bytes(source.read(0, 8).tobytes(), "little") if source.size >= 8 else 0
    if not 2 <= length <= min(_MAX_HEADER, source.size - 8):
        raise InputError(f"{file}: not a safetensors file, or cut off within its header")
    header = parse_json(source.read(8, length).tobytes(), f"{file}: the header")
    if not isinstance(header, dict):
        raise InputError(f"{file}: the header should be an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InputError(f"{file}: '__metadata__' should be an object of strings")
    tensors = {name: _tensor(source, 8 + length, name, entry) for name, entry in header.items()}

    end = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda t: (t[1].offset, t[1].nbytes)):
        if tensor.offset != end:
            problem = "overlaps another" if tensor.offset < end else "leaves a gap before it"
            raise InputError(f"{file}: tensor {name}: {problem}")
        end += tensor.nbytes
        if end > source.size:
            have = f"the file has {source.size}: was it cut off?"
            raise InputError(f"{file}: tensor {name}: ends at byte {end}, but {have}")
    if end != source.size:
        raise InputError(f"{file}: has {source.size} bytes, but its tensors end at byte {end}")
    return tensors


def _tensor(source: ByteRanges, start: int, name: str, entry: Any) -> StoredTensor:
    check_name(name, source.file)

    def problem(text: str) -> InputError:
        return InputError(f"{source.file}: tensor {name}: {text}")

    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise problem("should have 'dtype', 'shape' and 'data_offsets'")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        known = ", ".join(_DTYPES)
        raise problem(f"the dtype is {reprlib.repr(code)}, expected one of {known}")
    if not is_shape(shape):
        raise problem("'shape' should list the sizes of an array")
    if not _is_range(offsets):
        raise problem("'data_offsets' should be where the tensor begins and where it ends")
    begin, end = offsets
    tensor = StoredTensor(source, start + begin, tuple(shape), _DTYPES[code])
    if end - begin != tensor.nbytes:
        raise problem(f"{tensor.nbytes} bytes in its shape, {end - begin} in the file")
    return tensor


def _is_range(offsets: Any) -> bool:
    return (
        isinstance(offsets, list)
        and len(offsets) == 2
        and all(type(offset) is int for offset in offsets)
        and 0 <= offsets[0] <= offsets[1] < 2**60
    )


@runtime_checkable
class ShapeAndDtype(Protocol):
    """A jax.ShapeDtypeStruct, an array, a StoredTensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...


def write_safetensors(
    folder: str | Path,
    tensors: Mapping[str, ShapeAndDtype],
    read: Callable[[str], np.ndarray],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes model.safetensors, or shards and their index as `transformers` does.

    `tensors` says what will be written. `read(name)` is called once for each, when its turn has
    come, and its array is let go before the next call. A shard holds up to `shard_bytes`, or one
    tensor that is larger. `folder` must exist; files in it are overwritten.
    """
    shards = _shards(tensors, shard_bytes)
    names = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for name, shard in zip(names, shards, strict=True):
        _write(Path(folder) / name, {key: tensors[key] for key in shard}, read)
    if len(shards) > 1:
        total = sum(map(_nbytes, tensors.values()))
        places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (Path(folder) / "model.safetensors.index.json").write_text(text)


def reading_order(
    tensors: Mapping[str, ShapeAndDtype], shard_bytes: int = SHARD_BYTES
) -> list[str]:
    """The names in the order in which `write_safetensors` reads them."""
    return [name for shard in _shards(tensors, shard_bytes) for name in _aligned(tensors, shard)]


def _aligned(tensors: Mapping[str, ShapeAndDtype], names: Iterable[str]) -> list[str]:
    """The widest first, so that every tensor is aligned to its items."""
    return sorted(names, key=lambda name: -tensors[name].dtype.itemsize)


def _shards(tensors: Mapping[str, ShapeAndDtype], shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, tensor in tensors.items():
        if shards[-1] and _nbytes(tensor) > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= _nbytes(tensor)
    return shards


def _write(
    path: Path, tensors: Mapping[str, ShapeAndDtype], read: Callable[[str], np.ndarray]
) -> None:
    order = _aligned(tensors, tensors)
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + _nbytes(tensor)
        code = codes[tensor.dtype]
        header[name] = {"dtype": code, "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            array = read(name)
            found, expected = (array.shape, array.dtype), (tensors[name].shape, tensors[name].dtype)
            if found != expected:
                raise ValueError(f"{name} is {found}, but was declared as {expected}")
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            del array  # before the next is made


def _nbytes(tensor: ShapeAndDtype) -> int:
    return prod(tensor.shape) * tensor.dtype.itemsize
