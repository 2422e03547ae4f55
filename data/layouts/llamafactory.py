"""LLaMA-Factory's ranking data sets, in its alpaca and its sharegpt format."""

from collections.abc import Mapping
from typing import Any

from glm_jax.data.layouts.layout import Layout, Row, answer, carried, message, messages, pair, text
from glm_jax.data.records import Message, Pair

_FROM = {"system": "system", "user": "human", "assistant": "gpt", "observation": "observation"}


def _is_alpaca(row: Row) -> bool:
    return (
        isinstance(row.get("instruction"), str)
        and isinstance(row.get("chosen"), str)
        and isinstance(row.get("rejected"), str)
    )


def _of_alpaca(row: Row) -> list[Pair]:
    """`input` stands a line below `instruction`; `history` holds questions and their answers."""
    question = text(row, "instruction")
    if row.get("input"):
        question = f"{question}\n{text(row, 'input')}"
    prompt = _system(row) + _history(row) + [_message("user", question)]
    return [pair(row, prompt, text(row, "chosen"), text(row, "rejected"))]


def _to_alpaca(pair: Pair) -> dict[str, Any]:
    rest = list(pair.prompt)
    system = rest.pop(0)["content"] if rest[0]["role"] == "system" else ""
    roles = [message["role"] for message in rest]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise ValueError("field 'prompt': alpaca knows questions and their answers, by turns")
    contents = [message["content"] for message in rest]
    return {
        "instruction": contents[-1],
        "input": "",
        "system": system,
        "history": [list(turn) for turn in zip(contents[:-1:2], contents[1:-1:2], strict=True)],
        "chosen": pair.chosen,
        "rejected": pair.rejected,
    } | carried(pair)


def _is_sharegpt(row: Row) -> bool:
    return (
        isinstance(row.get("conversations"), list)
        and isinstance(row.get("chosen"), Mapping)
        and isinstance(row.get("rejected"), Mapping)
    )


def _of_sharegpt(row: Row) -> list[Pair]:
    if row.get("tools"):
        raise ValueError("field 'tools': there is no place for tools here; leave such rows out")
    prompt = _system(row) + messages(row, "conversations", "from", "value")
    sides = (
        answer([message(row[side], side, "from", "value")], side) for side in ("chosen", "rejected")
    )
    return [pair(row, prompt, *sides)]


def _to_sharegpt(pair: Pair) -> dict[str, Any]:
    return {
        "conversations": [
            {"from": _FROM[message["role"]], "value": message["content"]} for message in pair.prompt
        ],
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
    } | carried(pair)


def _system(row: Row) -> list[Message]:
    return [_message("system", text(row, "system"))] if row.get("system") else []


def _history(row: Row) -> list[Message]:
    found: list[Message] = []
    for i, turn in enumerate(row.get("history") or []):
        if not (
            isinstance(turn, list | tuple)
            and len(turn) == 2
            and all(isinstance(t, str) for t in turn)
        ):
            raise ValueError(f"field 'history.{i}': expected a question and its answer, two texts")
        found += [_message("user", turn[0]), _message("assistant", turn[1])]
    return found


def _message(role: Any, content: str) -> Message:
    return {"role": role, "content": content}


LAYOUTS = (
    Layout("llamafactory-alpaca", _is_alpaca, _of_alpaca, _to_alpaca),
    Layout("llamafactory-sharegpt", _is_sharegpt, _of_sharegpt, _to_sharegpt),
)
