"""Prompts, dialogues, pairs and samples: what they hold, and how they are read and written."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from glm_jax.data import rows, writing
from glm_jax.errors import InputError

Role = Literal["system", "user", "assistant", "observation"]
Quality = Literal["clear", "unclear_intention", "unclear_semantics", "unanswerable"]


Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Weight = Annotated[float, Field(strict=True, ge=1e-30, le=1e30)]
"above 0, and nothing that float32 cannot add up"
Count = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
"what a column of the table of pairs holds"


class Message(TypedDict):
    role: Role
    content: str


class Votes(TypedDict):
    """How many annotators preferred which response, and how many neither."""

    chosen: Count
    rejected: Count
    tie: Count


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a response answers; `task` is for whoever made the prompt, and opaque here."""

    id: str
    prompt: list[Message]
    category: str | None = None
    quality: Quality | None = None
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
    tie: Flag = False
    margin: Number | None = None
    "how much better in score the chosen one should be: enters the ranking loss"
    strength: Number | None = None
    "how clearly it is preferred, as the annotator said: 1 slightly, 2 clearly, more: very"
    weight: Weight | None = None
    "of the pair in the loss; 1 if not given"
    category: str | None = None
    language: str | None = None
    annotator: str | None = None
    milliseconds: Number | None = None
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
    if record is Pair:
        from glm_jax.data import sources  # which is made of records

        return list(sources.open_pairs(path, category=category))
    records = []
    for number, raw in rows.rows(path):
        try:
            values = rows.parse(raw)
            values["id"] = str(number if values.get("id") is None else values["id"])
            name_field(values, "category", category)
            records.append(parse(values, record))
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from None
    if not records:
        raise InputError(f"{path}: no records; expected one JSON object a line")
    return records


def parse(values: dict[str, Any], record: type[Record]) -> Record:
    """The record of these values; ValueError names the first field that is wrong."""
    try:
        parsed = _adapter(record).validate_python(values)
    except ValidationError as error:
        raise ValueError(_first(error)) from None
    if not parsed.prompt:
        raise ValueError("field 'prompt' is empty; expected at least one message")
    if parsed.prompt[-1]["role"] == "assistant":
        raise ValueError("field 'prompt' ends with an assistant message; that is the response")
    votes = parsed.votes if record is Pair else None
    if votes and is_tie(votes["chosen"], votes["rejected"], votes["tie"]):
        return replace(parsed, tie=True)
    return parsed


def is_tie(one: Any, other: Any, neither: Any) -> Any:
    """Equal votes are a tie; so are more votes for neither than for the better side."""
    return (one == other) | ((neither > one) & (neither > other))


def name_field(values: dict[str, Any], name: str, field: str | None) -> None:
    """Takes `name` of a row from another of its fields, as text; nothing if none is given.

    The field may also lie where annotation tools put those of the record.
    """
    if field is None:
        return
    inner = (values, *(values.get(part) for part in ("data", "metadata", "fields")))
    found = next((part for part in inner if isinstance(part, Mapping) and field in part), None)
    if found is None:
        raise ValueError(f"field '{field}', which should hold the {name}, is missing")
    values[name] = None if found[field] is None else str(found[field])


def write(path: str | Path, records: Iterable[object]) -> None:
    """Write records (or ready dictionaries), one a line; compressed for `.gz` and `.zst`.

    The file appears whole or not at all, and the same records give the same bytes.
    """
    writing.write_lines(path, map(to_dict, records))


def to_dict(record: object) -> dict[str, Any]:
    """A record as a JSON object, without the fields that are None."""
    if isinstance(record, Mapping):
        return dict(record)
    return {name: value for name, value in vars(record).items() if value is not None}


def prompt_key(prompt: list[Message]) -> str:
    """The same string for the same messages, and for no others."""
    return json.dumps([(message["role"], message["content"]) for message in prompt])


def draw(seed: int, key: str) -> int:
    """A uniform 64-bit number that depends on seed and key alone: chance without an order."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest())


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
