"""The rows of JSON lines, plain or compressed, each with its number; other files: data.tables."""

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from glm_jax.errors import InputError

MAX_ROW_BYTES = 16 * 2**20
"A longer line is an error, and never in memory as a whole: most likely it is not JSON lines."
_BLOCK = 2**20

Raw = bytes | dict[str, Any] | ValueError
"A row as it lies in the file: not yet parsed, parsed, or what is wrong with it."


class Span(NamedTuple):
    """A part of a file of plain JSON lines: bytes `start` to `stop`, the first of line `line`."""

    start: int = 0
    stop: int | None = None
    line: int = 1


WHOLE = Span()


def rows(path: str | Path, span: Span = WHOLE) -> Iterator[tuple[int, Raw]]:
    """The rows of a file or folder in its order, numbered from 1; blank lines are left out.

    JSON lines and JSON arrays (plain, `.gz`, `.zst`), Parquet, folders of `datasets` and of
    tensorflow-datasets. Raises InputError if the file cannot be read, or not to its end.
    """
    path = Path(path)
    is_split = not path.exists() and (path.parent / "dataset_info.json").is_file()
    if path.is_dir() or path.suffix == ".parquet" or is_split:
        from glm_jax.data import tables

        yield from tables.rows(path)
        return
    number = 0
    try:
        with _opened(path) as file:
            is_array = span.start == 0 and _first_byte(file) == b"["
            found = _elements(file) if is_array else _lines(file, span)
            for number, raw in found:
                yield number, raw
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        where = path if isinstance(error, OSError) and not number else f"{path}:{number + 1}"
        raise InputError(f"{where}: cannot be read: {error}") from None


def parse(raw: Raw) -> dict[str, Any]:
    """The row as an object; ValueError says in one line why it is none."""
    if isinstance(raw, ValueError):
        raise raw
    if isinstance(raw, dict):
        return raw
    try:
        values = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(_not_json(raw, error)) from None
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, got {type(values).__name__}")
    return values


def cut(path: str | Path, n: int) -> list[Span]:
    """About n spans of equal size that make up a file; only one unless it is of plain lines."""
    path = Path(path)
    if n < 2 or not path.is_file() or path.suffix in (".gz", ".zst", ".parquet"):
        return [WHOLE]
    with open(path, "rb") as file:
        if _first_byte(file) == b"[":
            return [WHOLE]
        size = file.seek(0, io.SEEK_END)
        starts = [0]
        for i in range(1, n):
            file.seek(max(size * i // n - 1, 0))
            _to_the_next_line(file)
            if starts[-1] < file.tell() < size:
                starts.append(file.tell())
        lines = [1]
        file.seek(0)
        for start, stop in pairwise(starts):
            lines.append(lines[-1] + _newlines(file, stop - start))
    return [Span(*part) for part in zip(starts, [*starts[1:], None], lines, strict=True)]


def _opened(path: Path) -> io.BufferedReader:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path), _BLOCK)
    if path.suffix == ".zst":
        import pyarrow

        with open(path, "rb"):  # says what cannot be opened as for any other file
            return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"), _BLOCK)
    return open(path, "rb", _BLOCK)


def _first_byte(file: io.BufferedReader) -> bytes:
    """The first byte that is no blank, without moving on."""
    return file.peek(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1]


def _lines(file: io.BufferedReader, span: Span) -> Iterator[tuple[int, Raw]]:
    position, number = span.start, span.line
    if position:
        file.seek(position)
    while (span.stop is None or position < span.stop) and (
        line := file.readline(MAX_ROW_BYTES + 1)
    ):
        position += len(line)
        if len(line) > MAX_ROW_BYTES:
            position += 0 if line.endswith(b"\n") else _to_the_next_line(file)
            yield number, ValueError(f"a line of more than {MAX_ROW_BYTES:,} bytes")
        elif text := line.removeprefix(codecs.BOM_UTF8).strip():
            yield number, text
        number += 1


def _elements(file: io.BufferedReader) -> Iterator[tuple[int, Raw]]:
    """The elements of one JSON array, as JSON exports are written, a few in memory at a time.

    Only where they end is found here; they are parsed, and refused, as lines are.
    """
    with io.TextIOWrapper(file, "utf-8-sig", "surrogateescape") as source:
        text, at, number = source.read(_BLOCK).lstrip(), 1, 1
        while True:
            try:
                element, end = _element(text, at)
            except RecursionError:
                raise EOFError(f"element {number} is nested too deeply") from None
            except ValueError as error:
                more = (
                    source.read(max(_BLOCK, len(text))) if len(text) - at <= MAX_ROW_BYTES else ""
                )
                if not more:
                    raise EOFError(
                        f"from element {number} on it is no whole array: {error}"
                    ) from None
                text, at = text[at:] + more, 0
                continue
            if element is None:
                if (text[end:] + source.read(_BLOCK)).strip():
                    raise EOFError("something stands behind the array")
                return
            yield number, element.encode("utf-8", "surrogateescape")
            number, at = number + 1, end


def _element(text: str, at: int) -> tuple[str | None, int]:
    """The element that begins at or behind `at`, None at the end; the place behind its comma."""
    at = _past_blanks(text, at)
    if text.startswith("]", at):
        return None, at + 1
    _, stop = _DECODER.raw_decode(text, at)
    end = _past_blanks(text, stop)
    if not text.startswith((",", "]"), end):
        raise ValueError("no comma behind an element")
    return text[at:stop], end + text.startswith(",", end)


def _past_blanks(text: str, at: int) -> int:
    return _BLANKS.match(text, at).end()


_DECODER = json.JSONDecoder()
_BLANKS = re.compile(r"\s*")


def _to_the_next_line(file: io.BufferedReader) -> int:
    """Moves behind the next end of line; how many bytes that was."""
    start = 0
    while part := file.readline(_BLOCK):
        start += len(part)
        if part.endswith(b"\n"):
            break
    return start


def _newlines(file: io.BufferedReader, size: int) -> int:
    count = 0
    while size and (block := file.read(min(_BLOCK, size))):
        count += block.count(b"\n")
        size -= len(block)
    return count


def _not_json(raw: bytes, error: ValueError) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError as wrong:
        return f"not UTF-8: byte {wrong.start + 1} of the row"
    return f"not JSON: {error}"
