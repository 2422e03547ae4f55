"""Argilla exports: what `records.to_json`, `to_list` and `to_datasets` write, of 2 and before.

Records have fields (a prompt and several responses) and questions. A question is about preference
if its answers name fields (the best one, or all of them ranked), or if it rates a field whose name
begins its own. Discarded answers and drafts are left out, and so are suggestions.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from glm_jax.data.layouts.annotation import QUESTIONS, judged, prompt
from glm_jax.data.layouts.layout import Layout, Row, entries, listed, text
from glm_jax.data.layouts.ranked import Response
from glm_jax.data.records import Pair

_TIES = {"tie", "equal", "both", "neither", "same"}


class Answer(NamedTuple):
    question: str
    annotator: str
    value: Any


def recognises(row: Row) -> bool:
    return _is_nested(row) or _is_flat(row) or _is_old(row)


def pairs(row: Row) -> list[Pair]:
    fields = row["fields"] if _is_nested(row) else row
    answers = list(_answers(row))
    judgements = [
        (responses, {"annotator": annotator})
        for annotator, responses in (*_preferences(fields, answers), *_ratings(fields, answers))
    ]
    if answers and not judgements:
        asked = ", ".join(sorted({answer.question for answer in answers}))
        raise ValueError(f"none of the questions {asked} has answers that name or rate fields")
    return judged(_known(row), prompt(fields, "fields"), judgements)


def _is_nested(row: Row) -> bool:
    return isinstance(row.get("fields"), Mapping) and isinstance(row.get("responses"), Mapping)


def _is_flat(row: Row) -> bool:
    return any(name.endswith(".responses") for name in row)


def _is_old(row: Row) -> bool:
    return any(_are_old_answers(value) for value in row.values())


def _are_old_answers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, Mapping) and {"user_id", "value"} <= v.keys() for v in value)
    )


def _answers(row: Row) -> Iterator[Answer]:
    """Every submitted answer to every question; `annotators`, of our own export, names users."""
    annotators = row.get("annotators")
    names = annotators if isinstance(annotators, Mapping) else {}
    if _is_nested(row):
        asked: dict[str, Any] = dict(row["responses"])
    elif _is_flat(row):
        asked = {
            name.removesuffix(".responses"): _joined(row, name)
            for name in row
            if name.endswith(".responses")
        }
    else:
        asked = {name: value for name, value in row.items() if _are_old_answers(value)}
    for question in asked:
        for i, answer in enumerate(entries(asked, question) if asked[question] else []):
            if answer.get("status") in (None, "submitted") and answer.get("value") is not None:
                if answer.get("user_id") is None:
                    raise ValueError(f"field '{question}.{i}.user_id' is missing")
                user = str(answer["user_id"])
                yield Answer(question, str(names.get(user, user)), answer["value"])


def _joined(row: Row, name: str) -> list[dict[str, Any]]:
    """The answers to a question whose values, users and states lie in columns of their own."""
    values, users = listed(row, name), listed(row, f"{name}.users")
    states = listed(row, f"{name}.status") or [None] * len(values)
    if not len(values) == len(users) == len(states):
        raise ValueError(f"field '{name}': {len(values)} answers of {len(users)} users")
    return [
        {"value": value, "user_id": user, "status": status}
        for value, user, status in zip(values, users, states, strict=True)
    ]


def _preferences(fields: Row, answers: list[Answer]) -> Iterator[tuple[str, list[Response]]]:
    """Of each answer that names fields: who gave it, and the ranking."""
    for answer in answers:
        ranks = _ranks(fields, answer.value)
        if ranks and all(isinstance(fields.get(name), str) for name in ranks):
            yield answer.annotator, [Response(None, text(fields, n), r) for n, r in ranks.items()]


def _ranks(fields: Row, value: Any) -> dict[str, float] | None:
    """The rank of each field, of an answer to a question for a label or for a ranking."""
    if isinstance(value, str):
        shown = _responses(fields)
        if value.lower() in _TIES:
            return dict.fromkeys(shown, 0)
        return {name: int(name != value) for name in shown} if value in shown else None
    if isinstance(value, Mapping):  # as `datasets` holds a list of objects
        columns = listed(value, "value"), listed(value, "rank")
        ranked = list(zip(*columns, strict=False))
    elif isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):
        ranked = [(entry.get("value"), entry.get("rank")) for entry in value]
    else:
        ranked = [(name, i) for i, name in enumerate(value if isinstance(value, list) else [])]
    are_ranks = all(isinstance(n, str) and isinstance(r, int | float) for n, r in ranked)
    return dict(ranked) if are_ranks else None


def _responses(fields: Row) -> list[str]:
    """The fields that are compared: texts with a number or letter at the end of a common name."""
    texts = [
        n for n, v in fields.items() if isinstance(v, str) and n not in (*QUESTIONS, "context")
    ]
    stems: dict[str, list[str]] = {}
    for name in texts:
        stems.setdefault(name.rstrip("0123456789").rstrip("_- ").lower(), []).append(name)
    several = [names for stem, names in stems.items() if len(names) > 1]
    lettered = [n for n in texts if n.lower() in ("chosen", "rejected", "response_a", "response_b")]
    return max(several, key=len, default=lettered)


def _ratings(fields: Row, answers: list[Answer]) -> Iterator[tuple[str, list[Response]]]:
    """Of each annotator who rated fields: the ranking that the ratings make, 5 better than 1."""
    rated: dict[str, dict[str, float]] = {}
    for question, annotator, value in answers:
        name = question.removesuffix("rating").rstrip("-_. ").replace("generations-", "generation-")
        if name != question and isinstance(value, int | float):
            found = next((n for n in (name, question[: -len("-rating")]) if n in fields), None)
            if found:
                rated.setdefault(annotator, {})[found] = -value
    for annotator, ranks in rated.items():
        yield annotator, [Response(None, text(fields, n), rank) for n, rank in ranks.items()]


def _known(row: Row) -> dict[str, Any]:
    """The record's id, and what its metadata say that a pair knows too."""
    metadata = row.get("metadata")
    said = {**(metadata if isinstance(metadata, Mapping) else {}), **row}
    told = {
        name: said[name] for name in ("category", "language") if isinstance(said.get(name), str)
    }
    return told | {"id": row["id"]}


LAYOUT = Layout("argilla", recognises, pairs)
