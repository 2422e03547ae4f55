"""Ranked lists: several responses to one prompt with their ranks, of which 0 or 1 is the best.

All pairs of a ranking are made; equal ranks make a tie, and what has no rank is left out. Two
forms: a prompt with its `responses`, and the message trees of OpenAssistant, each of whose lists of
ranked answers counts.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple

from glm_jax.data.layouts.layout import Layout, Row, entries, inner, message, messages, pair, text
from glm_jax.data.records import Message, Pair


class Response(NamedTuple):
    id: str | None
    "its own in the whole file; without one, the text says which response it is"
    text: str
    rank: float


def pairs_of(
    row: Row, prompt: list[Message], responses: list[Response], first: int = 1, **more: object
) -> list[Pair]:
    """All pairs of a ranking, the better response first; ids count from `first`."""
    ranked = sorted(responses, key=lambda response: response.rank)
    return [
        pair(
            row,
            prompt,
            better.text,
            worse.text,
            id=f"{row['id']}.{first + i}",
            chosen_id=better.id,
            rejected_id=worse.id,
            tie=better.rank == worse.rank,
            **more,
        )
        for i, (better, worse) in enumerate(combinations(ranked, 2))
    ]


def _is_list(row: Row) -> bool:
    responses = row.get("responses")
    return (
        isinstance(row.get("prompt"), str | list)
        and isinstance(responses, list)
        and any(isinstance(entry, Mapping) and "rank" in entry for entry in responses)
    )


def _of_list(row: Row) -> list[Pair]:
    if isinstance(row.get("prompt"), str):
        prompt: list[Message] = [{"role": "user", "content": row["prompt"]}]
    else:
        prompt = messages(row, "prompt")
    responses = [
        Response(_id(entry, "id"), _content(entry, f"responses.{i}"), rank)
        for i, entry in enumerate(entries(row, "responses"))
        if (rank := _rank(entry, f"responses.{i}")) is not None
    ]
    return pairs_of(row, prompt, responses, prompt_id=_id(row, "prompt_id") or str(row["id"]))


def _is_tree(row: Row) -> bool:
    root = row.get("prompt")
    return isinstance(root, Mapping) and "text" in root and isinstance(root.get("replies"), list)


def _of_tree(row: Row) -> list[Pair]:
    root = inner(row, "prompt")
    name = str(row["id"])
    if row.get("message_tree_id"):
        name = str(row["message_tree_id"])
    found: list[Pair] = []
    for node, path, dialogue in _nodes(root, "prompt", []):
        responses = [
            Response(
                _id(reply, "message_id"),
                text(reply, "text", f"{path}.replies.{i}.text"),
                rank,
            )
            for i, reply in enumerate(entries(node, "replies", f"{path}.replies"))
            if reply.get("role") == "assistant"
            and (rank := _rank(reply, f"{path}.replies.{i}")) is not None
        ]
        found += pairs_of(
            {"id": name},
            dialogue,
            responses,
            len(found) + 1,
            prompt_id=_id(node, "message_id") or path,
            language=node.get("lang"),
        )
    return found


def _nodes(node: Row, path: str, before: list[Message]) -> Iterator[tuple[Row, str, list[Message]]]:
    """Every message of a tree that has replies, where it is, and the dialogue that it ends."""
    said = message(node, path, content="text")
    dialogue = [*before, said]
    if not node.get("replies"):
        return
    if said["role"] == "user":
        yield node, path, dialogue
    for i, reply in enumerate(entries(node, "replies", f"{path}.replies")):
        yield from _nodes(reply, f"{path}.replies.{i}", dialogue)


def _content(entry: Row, path: str) -> str:
    field = next((name for name in ("text", "content") if name in entry), "text")
    return text(entry, field, f"{path}.{field}")


def _rank(entry: Row, path: str) -> float | None:
    rank: Any = entry.get("rank")
    if rank is None or (isinstance(rank, int | float) and not isinstance(rank, bool)):
        return rank
    raise ValueError(f"field '{path}.rank': expected a number, got {rank!r}")


def _id(entry: Row, field: str) -> str | None:
    return None if entry.get(field) is None else str(entry[field])


LAYOUTS = (Layout("ranked", _is_list, _of_list), Layout("oasst", _is_tree, _of_tree))
