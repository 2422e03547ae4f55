"""What a layout is, and what all of them share."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from glm_jax.data import records
from glm_jax.data.records import Message, Pair, Votes  # noqa: F401  Votes is a field of Pair

Row = Mapping[str, Any]

CARRIED = (
    "id", "tie", "margin", "strength", "weight", "category", "language", "annotator",
    "milliseconds", "votes", "prompt_id", "chosen_id", "rejected_id", "task",
)  # fmt: skip
"Fields of our own that a row of any layout may have besides those of the layout."


class Layout(NamedTuple):
    """How the rows of a layout are known, read, and written where that loses nothing."""

    name: str
    recognises: Callable[[Row], bool]
    "by the names and types of fields, and nothing slower"
    pairs: Callable[[Row], list[Pair]]
    "of a row with an `id`; ValueError names the field that is wrong"
    row: Callable[[Pair], dict[str, Any]] | None = None
    "of which `pairs` makes the same pair again; ValueError if the layout cannot hold it"


def pair(row: Row, prompt: list[Message], chosen: str, rejected: str, **more: object) -> Pair:
    """The pair of these messages and texts, and what the row carries besides; `more` goes first."""
    carried = {name: row[name] for name in CARRIED if row.get(name) is not None}
    texts = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return records.parse(carried | texts | more, Pair)


def carried(pair: Pair) -> dict[str, Any]:
    """What a row of any layout carries of the pair besides prompt and responses."""
    values = records.to_dict(pair)
    return {name: values[name] for name in CARRIED if name in values and values[name] is not False}


def text(row: Row, field: str, path: str | None = None) -> str:
    """A field that must be text; `path` names it in errors, where it lies deeper in the row."""
    value = row.get(field)
    if isinstance(value, str):
        return value
    name = path or field
    raise ValueError(
        f"field '{name}' is missing" if value is None else f"field '{name}': {_not('text', value)}"
    )


def entries(row: Row, field: str) -> list[Row]:
    """A field that must be a list of objects."""
    value = row.get(field)
    if value is None:
        raise ValueError(f"field '{field}' is missing")
    if not isinstance(value, list):
        raise ValueError(f"field '{field}': {_not('a list', value)}")
    for i, entry in enumerate(value):
        if not isinstance(entry, Mapping):
            raise ValueError(f"field '{field}.{i}': {_not('an object', entry)}")
    return value


ROLES: dict[str, records.Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant",
    "function_call": "assistant",
    "observation": "observation", "tool": "observation", "function": "observation",
}  # fmt: skip
"The roles of other layouts, and what they are here."


def messages(row: Row, field: str, role: str = "role", content: str = "content") -> list[Message]:
    """A field that must be a list of messages, whose fields are called `role` and `content`."""
    return [
        message(entry, f"{field}.{i}", role, content) for i, entry in enumerate(entries(row, field))
    ]


def message(entry: Row, path: str, role: str = "role", content: str = "content") -> Message:
    """One message, found at `path` of its row."""
    named = text(entry, role, f"{path}.{role}")
    if named not in ROLES:
        raise ValueError(f"field '{path}.{role}': expected {', '.join(ROLES)}; got {named!r}")
    return {"role": ROLES[named], "content": text(entry, content, f"{path}.{content}")}


def answer(found: list[Message], field: str) -> str:
    """The text of the one message that a response must be."""
    if len(found) != 1 or found[0]["role"] != "assistant":
        raise ValueError(
            f"field '{field}': expected one message of the assistant behind the prompt, got "
            + (", ".join(m["role"] for m in found[:5]) or "none")
        )
    return found[0]["content"]


def _not(expected: str, value: object) -> str:
    shown = repr(value)
    return f"expected {expected}, got {shown if len(shown) <= 60 else shown[:57] + '...'}"
