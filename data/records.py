"""Prompts, dialogues, pairs and samples as JSON lines: one object a line, plain or `.gz`."""

import codecs
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

from glm_jax.errors import InputError

Role = Literal["system", "user", "assistant", "observation"]


class Message(TypedDict):
    role: Role
    content: str


class Votes(TypedDict):
    """How many annotators preferred which response, and how many neither."""

    chosen: int
    rejected: int
    tie: int


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a response answers; `task` is for whoever made the prompt, and opaque here."""

    id: str
    prompt: list[Message]
    category: str | None = None
    task: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """A prompt and the response to learn from."""

    id: str
    prompt: list[Message]
    response: str
    category: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two responses to one prompt, the preferred one first (unless it is a tie).

    Several judgements of the same two responses are rows of their own until they are added up.
    """

    id: str
    prompt: list[Message]
    chosen: str
    rejected: str
    tie: bool = False
    margin: float | None = None
    "how much better in score the chosen one should be: enters the ranking loss"
    strength: float | None = None
    "how clearly it is preferred, as the annotator said: 1 slightly, 2 clearly, more: very"
    weight: float | None = None
    "of the pair in the loss; 1 if not given"
    category: str | None = None
    language: str | None = None
    annotator: str | None = None
    milliseconds: float | None = None
    "that the annotator took for the pair"
    votes: Votes | None = None
    "of all annotators of the pair, once they are added up"
    prompt_id: str | None = None
    chosen_id: str | None = None
    rejected_id: str | None = None
    task: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A model's `sample`-th response to the prompt `id`, with the log-probs of its tokens."""

    id: str
    sample: int
    prompt: list[Message]
    text: str
    tokens: list[int]
    log_probs: list[float]
    finish: Literal["stop", "length", "repetition"]
    category: str | None = None
    task: dict[str, Any] | None = None
    score: float | None = None


Record = TypeVar("Record", Prompt, Dialogue, Pair, Sample)


def read(path: str | Path, record: type[Record], *, category: str | None = None) -> list[Record]:
    """All records of a file. Unknown fields and blank lines are ignored; `id` defaults to the line.

    `category`: the field that holds the category, where it is not called so.
    Raises InputError with file and line for whatever is not such a record.
    """
    records = []
    for number, line in enumerate(_lines(path), start=1):
        text = line.removeprefix(codecs.BOM_UTF8).strip()
        if not text:
            continue
        try:
            records.append(_parse(text, record, number, category))
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from None
    if not records:
        raise InputError(f"{path}: no records; expected one JSON object a line")
    return records


def write(path: str | Path, records: Iterable[object]) -> None:
    """Write records (or ready dictionaries), one a line; gzipped if the name ends in `.gz`.

    The file appears whole or not at all, and the same records give the same bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(to_dict(r), ensure_ascii=False, allow_nan=False) + "\n" for r in records)
    data = "".join(lines).encode()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def to_dict(record: object) -> dict[str, Any]:
    """A record as a JSON object, without the fields that are None."""
    if isinstance(record, Mapping):
        return dict(record)
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: value for name, value in values.items() if value is not None}


def prompt_key(prompt: list[Message]) -> str:
    """The same string for the same messages, and for no others."""
    return json.dumps([(message["role"], message["content"]) for message in prompt])


def draw(seed: int, key: str) -> int:
    """A uniform 64-bit number that depends on seed and key alone: chance without an order."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest())


def _lines(path: str | Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as file:
            yield from file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _parse(line: bytes, record: type, number: int, category: str | None) -> Any:
    try:
        values = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, got {type(values).__name__}")
    values["id"] = str(number if values.get("id") is None else values["id"])
    if category is not None:
        if category not in values:
            raise ValueError(f"field '{category}', which should hold the category, is missing")
        values["category"] = None if values[category] is None else str(values[category])
    try:
        parsed = _adapter(record).validate_python(values)
    except ValidationError as error:
        raise ValueError(_first(error)) from None
    if not parsed.prompt:
        raise ValueError("field 'prompt' is empty; expected at least one message")
    if parsed.prompt[-1]["role"] == "assistant":
        raise ValueError("field 'prompt' ends with an assistant message; that is the response")
    return parsed


@cache
def _adapter(record: type) -> TypeAdapter:
    return TypeAdapter(record)


def _first(error: ValidationError) -> str:
    """One line about the first wrong field."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"field '{field}' is missing"
    value = repr(first["input"])
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"field '{field}': {first['msg'].lower()}, got {value}"
