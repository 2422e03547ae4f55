"""The rows of JSON lines, plain or compressed, each with its number; other files: data.tables."""

import codecs
import gzip
import io
import json
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
    if path.is_dir() or path.suffix == ".parquet" or (path.parent / "dataset_info.json").is_file():
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
        where = f"{path}:{number + 1}" if number else path
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
    """The elements of one JSON array, as JSON exports are written, in little memory."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    reader = codecs.getreader("utf-8-sig")(file)
    number, text, at = 1, reader.read(_BLOCK).lstrip(), 1
    while True:
        at = _past_blanks(text, at)
        try:
            if text[at : at + 1] == "]" and not text[at + 1 :].strip():
                return
            value, end = decoder.raw_decode(text, at)
            end = _past_blanks(text, end)
            if end == len(text):
                raise IndexError("the element may go on")
        except (IndexError, ValueError):
            more = reader.read(max(_BLOCK, len(text)))
            text, at = text[at:] + more, 0
            if len(text) > 3 * MAX_ROW_BYTES:
                error = ValueError(f"an element of more than {MAX_ROW_BYTES:,} bytes")
            elif more:
                continue
            raise EOFError(f"the array is not whole JSON: {error}") from None
        yield number, value if isinstance(value, dict) else _no_object(value)
        number, at = number + 1, end + (text[end] == ",")


def _past_blanks(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at


def _no_object(value: object) -> ValueError:
    return ValueError(f"expected a JSON object, got {type(value).__name__}")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


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
        return f"not UTF-8: byte {wrong.start + 1} of the line"
    return f"not JSON: {error}"
