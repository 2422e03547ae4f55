"""Rows into files that appear whole or not at all, in the format that the name's suffix says."""

import glob
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from glm_jax.errors import InputError

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
TEXT = (".jsonl", ".json", ".gz", ".zst")


def write_lines(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, compressed if the name ends in `.gz` or `.zst`.

    The rows are never all in memory; the same rows give the same bytes.
    """
    write_parts(path, map(line, rows))


def line(row: Mapping[str, Any]) -> bytes:
    """The row as a line of JSON."""
    return (_JSON.encode(row) + "\n").encode()


def array(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """The parts of one JSON array of all rows, for programs that read no JSON lines."""
    before = b"["
    for row in rows:
        yield before + _JSON.encode(row).encode()
        before = b",\n"
    yield b"[]\n" if before == b"[" else b"]\n"


def write_parts(path: str | Path, parts: Iterable[bytes]) -> None:
    """Write a file part by part, compressed if the name ends in `.gz` or `.zst`."""
    with unfinished(Path(path)) as part, opened(part, Path(path).suffix) as file:
        for some in parts:
            file.write(some)


def writer(path: str | Path) -> Callable[[Path, Iterable[dict[str, Any]]], None]:
    """What writes our own rows of pairs to a file or folder of this name."""
    suffix = Path(path).suffix
    if suffix in TEXT:
        return write_lines
    if suffix == ".parquet":
        from glm_jax.data import tables

        return tables.write
    if not suffix:
        from glm_jax.data import tfds_folder

        return tfds_folder.write
    raise InputError(
        f"{path}: a name that ends in {suffix}; expected .jsonl, .jsonl.gz, .jsonl.zst, .parquet, "
        "or none for a folder of tensorflow-datasets"
    )


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A file or folder beside `path` that takes its name if all went well, and is gone if not.

    What processes that were killed have left of the same file is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if left.suffix[1:].isdecimal() and not _lives(int(left.suffix[1:])):
            _delete(left)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield part
        os.replace(part, path)
    finally:
        _delete(part)


def _delete(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    part.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's, or no process's number
        return True
    return True


@contextmanager
def opened(path: Path, suffix: str) -> Iterator[IO[bytes] | Any]:
    """A file to write lines to, compressed as the suffix says."""
    if suffix == ".zst":
        import pyarrow

        with pyarrow.output_stream(str(path), compression="zstd") as file:
            yield file
    elif suffix == ".gz":
        # without a name and a time, which would be other bytes each time
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
            yield file
    else:
        with open(path, "wb", 2**20) as file:
            yield file
