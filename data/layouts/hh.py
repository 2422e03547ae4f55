"""Anthropic HH: `chosen` and `rejected` are whole dialogues of Human and Assistant, as text."""

import re
from typing import Any

from glm_jax.data.layouts.layout import Layout, Row, carried, pair, text
from glm_jax.data.records import Message, Pair, Role

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
_NAMES = {"user": "Human", "assistant": "Assistant"}


def recognises(row: Row) -> bool:
    return all(
        isinstance(row.get(side), str) and row[side].startswith("\n\nHuman:")
        for side in ("chosen", "rejected")
    )


def pairs(row: Row) -> list[Pair]:
    """The prompt ends where both dialogues have the assistant speak for the last time in common.

    What follows is the response, as it stands: in a few rows of HH the dialogues part before their
    last turn, and the response is then the rest of the dialogue.
    """
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    turns, others = _turns(chosen, "chosen"), _turns(rejected, "rejected")
    n = 0
    for i, (turn, other) in enumerate(zip(turns, others, strict=False)):
        if turn[0] == other[0] == "Assistant":
            n = i
        if turn[:2] != other[:2]:
            break
    prompt: list[Message] = [
        {"role": _ROLES[name], "content": said.strip()} for name, said, _ in turns[:n]
    ]
    return [pair(row, prompt, chosen[turns[n][2] :].strip(), rejected[others[n][2] :].strip())]


def row(pair: Pair) -> dict[str, Any]:
    if any(message["role"] not in _NAMES for message in pair.prompt):
        raise ValueError("field 'prompt': HH has no roles but user and assistant")
    beginning = "".join(
        f"\n\n{_NAMES[message['role']]}: {message['content']}" for message in pair.prompt
    )
    written = {
        side: f"{beginning}\n\nAssistant: {text}"
        for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
    } | carried(pair)
    if pairs({"id": pair.id} | written) != [pair]:
        raise ValueError("a text that begins or ends with blanks, or looks like a turn of HH")
    return written


def _turns(dialogue: str, field: str) -> list[tuple[str, str, int]]:
    """Who speaks, what, and where in the dialogue that begins."""
    starts = list(_TURN.finditer(dialogue))
    if not starts or starts[0].start() or starts[0][1] != "Human":
        raise ValueError(f"field '{field}': expected a dialogue that begins with '\\n\\nHuman:'")
    if starts[-1][1] != "Assistant":
        raise ValueError(f"field '{field}': expected the last turn to be of the 'Assistant:'")
    ends = [start.start() for start in starts[1:]] + [len(dialogue)]
    return [
        (start[1], dialogue[start.end() : end], start.end())
        for start, end in zip(starts, ends, strict=True)
    ]


LAYOUT = Layout("hh", recognises, pairs, row)
