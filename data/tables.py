"""The rows of Parquet files, of `datasets` folders and of tensorflow-datasets, without the latter
two's own libraries where that is possible, and always without TensorFlow."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from glm_jax.data import tfds_folder, writing
from glm_jax.errors import InputError

BATCH = 1024
"rows that are in memory at once"


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows, numbered from 1. Raises InputError if it is nothing that is known, or broken."""
    number = 0
    try:
        for number, row in enumerate(_reader(path)(path), start=1):
            yield number, {name: value for name, value in row.items() if value is not None}
    except FileNotFoundError as error:
        what = f"cannot be read: {error}" if path.exists() else "no such file"
        raise InputError(f"{path}: {what}") from None
    except (OSError, ValueError) as error:  # what pyarrow raises is one of these
        if isinstance(error, InputError):
            raise
        where = f"{path}:{number + 1}" if number else path
        raise InputError(f"{where}: cannot be read: {error}") from None


def _reader(path: Path) -> Any:
    if path.suffix == ".parquet" and not path.is_dir():
        return _parquet
    if not path.exists() and tfds_folder.is_one(path.parent):
        return tfds_folder.rows
    names = {file.name for file in path.iterdir()}
    if "state.json" in names:
        return _arrow
    if "dataset_dict.json" in names:
        splits = _listed(path / "dataset_dict.json", "splits")
        raise InputError(
            f"{path}: name one of its splits: {', '.join(str(path / s) for s in splits)}"
        )
    if tfds_folder.is_one(path):
        return tfds_folder.rows
    raise InputError(
        f"{path}: cannot be read: a directory, but none of `datasets` (state.json) nor of "
        "tensorflow-datasets (dataset_info.json)"
    )


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        yield from _of_batches(file.iter_batches(BATCH))


def _arrow(path: Path) -> Iterator[dict[str, Any]]:
    """What `save_to_disk` of `datasets` writes: Arrow streams, in the order of state.json."""
    import pyarrow

    state = path / "state.json"
    if _listed(state, "_indices_data_files", []):
        raise InputError(
            f"{path}: only a selection of its rows: call flatten_indices() before saving"
        )
    for file in _listed(state, "_data_files"):
        if not (isinstance(file, Mapping) and isinstance(file.get("filename"), str)):
            raise ValueError(f"{state.name}: '_data_files' without a 'filename'")
        with pyarrow.OSFile(str(path / file["filename"])) as source:
            yield from _of_batches(pyarrow.ipc.open_stream(source))


def _listed(description: Path, field: str, default: list[Any] | None = None) -> list[Any]:
    """A list in a file that describes a folder; ValueError if there is none."""
    known = json.loads(description.read_text())
    found = (known.get(field) or default) if isinstance(known, Mapping) else None
    if not isinstance(found, list):
        raise ValueError(f"{description.name}: no list '{field}'")
    return found


def _of_batches(batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH):
            yield from batch.slice(start, BATCH).to_pylist()


def write(path: str | Path, pairs: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows of our own layout to a Parquet file; `task`, which may hold anything, as JSON."""
    import pyarrow
    from pyarrow import parquet

    text, number, count = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    types = {
        "id": text,
        "prompt": pyarrow.list_(pyarrow.struct({"role": text, "content": text})),
        "chosen": text,
        "rejected": text,
        "tie": pyarrow.bool_(),
        **dict.fromkeys(("margin", "strength", "weight"), number),
        **dict.fromkeys(("category", "language", "annotator"), text),
        "milliseconds": number,
        "votes": pyarrow.struct({"chosen": count, "rejected": count, "tie": count}),
        **dict.fromkeys(("prompt_id", "chosen_id", "rejected_id", "task"), text),
    }
    schema, left = pyarrow.schema(types), iter(pairs)
    with (
        writing.unfinished(Path(path)) as part,
        parquet.ParquetWriter(part, schema, compression="zstd") as file,
    ):
        while batch := [_with_json(row) for row in islice(left, BATCH)]:
            file.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema))


def _with_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "task": json.dumps(row["task"])} if "task" in row else dict(row)
