"""The tensors of a checkpoint's folder, from whatever kind of files it holds."""

import os
import reprlib
from collections import defaultdict
from collections.abc import Callable

from etils import epath

from glm_jax.checkpoint.byte_ranges import ByteRanges
from glm_jax.checkpoint.legacy_bin import bin_tensors
from glm_jax.checkpoint.safetensors_files import safetensors_tensors
from glm_jax.checkpoint.stored_tensor import StoredTensor, check_name
from glm_jax.checkpoint.strict_json import parse_json
from glm_jax.errors import InputError

_KINDS: dict[str, Callable[[str], dict[str, StoredTensor]]] = {
    "model.safetensors": safetensors_tensors,
    "pytorch_model.bin": bin_tensors,
}
_INDEX = ".index.json"
_MAX_INDEX = 2**26


def stored_tensors(folder: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint by name, of which only headers and indexes are read.

    `folder`: local or remote ("gs://bucket/model"), with one file or shards and their index.
    Safetensors are preferred to files of torch.save.

    Raises InputError when there are none, a file is not what it should be, or the index and the
    shards disagree.
    """
    root = epath.Path(folder)
    try:
        names = {path.name for path in root.iterdir()} if root.is_dir() else set()
    except ImportError as error:  # the package for that kind of storage
        raise InputError(f"{folder}: {error}") from None
    for file, read in _KINDS.items():
        if file + _INDEX in names:
            return _sharded(root, file + _INDEX, names, read)
        if file in names:
            return read(os.fspath(root / file))
    wanted = " or ".join(_KINDS)
    raise InputError(f"{folder}: no weights here: expected {wanted}, or shards with {_INDEX}")


def _sharded(
    root: epath.Path, index: str, names: set[str], read: Callable[[str], dict[str, StoredTensor]]
) -> dict[str, StoredTensor]:
    file = os.fspath(root / index)
    places = _weight_map(file)
    shards = sorted(set(places.values()))
    _refuse(file, [f"the shard {shard} is missing" for shard in shards if shard not in names])
    found: dict[str, StoredTensor] = {}
    homes: dict[str, list[str]] = defaultdict(list)
    for shard in shards:
        tensors = read(os.fspath(root / shard))
        found |= tensors
        for name in tensors:
            homes[name].append(shard)
    wrong = []
    for name in sorted(places.keys() | homes.keys()):
        have, said = homes.get(name, ["no shard"]), places.get(name, "nothing of it")
        if have != [said]:
            wrong.append(f"{name} is in {' and '.join(have)}, but the index says {said}")
    _refuse(file, wrong)
    return found


def _weight_map(file: str) -> dict[str, str]:
    """Which shard holds each tensor: a file beside the index, or a link to one elsewhere."""
    source = ByteRanges(file)
    if source.size > _MAX_INDEX:
        raise InputError(f"{file}: has {source.size} bytes, which is too long for an index")
    index = parse_json(source.read(0, source.size).tobytes(), file)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise InputError(f"{file}: 'weight_map' should be an object: of each tensor its file")
    for name, shard in places.items():
        check_name(name, file)
        plain = isinstance(shard, str) and shard.isprintable() and not set(shard) & {"/", "\\"}
        if not plain or shard in ("", ".", ".."):
            found = reprlib.repr(shard)
            raise InputError(f"{file}: tensor {name}: expected a file of this folder, got {found}")
    return places


def _refuse(file: str, wrong: list[str]) -> None:
    if wrong:
        more = f"; ... ({len(wrong)} in all)" if len(wrong) > 5 else ""
        raise InputError(f"{file}: does not fit its shards: {'; '.join(wrong[:5])}{more}")
