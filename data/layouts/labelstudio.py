"""Label Studio's JSON export: tasks with their annotations, made with `Pairwise` or `Ranker`."""

import re
from collections.abc import Mapping
from typing import Any

from glm_jax.data.layouts.annotation import judged, prompt
from glm_jax.data.layouts.layout import Layout, Row, entries, inner, listed, text
from glm_jax.data.layouts.ranked import Response
from glm_jax.data.records import Pair

_SIDES = re.compile(r"(.*?)[-_ ]?(1|2|a|b|left|right)", re.IGNORECASE)


def recognises(row: Row) -> bool:
    return isinstance(row.get("data"), Mapping) and isinstance(row.get("annotations"), list)


def pairs(row: Row) -> list[Pair]:
    """An annotation that was cancelled, or says nothing of preference, makes no pair."""
    data = inner(row, "data")
    judgements = []
    for i, annotation in enumerate(entries(row, "annotations")):
        if annotation.get("was_cancelled"):
            continue
        results = entries(annotation, "result", f"annotations.{i}.result")
        found = []
        for j, result in enumerate(results):
            found += _ranking(data, result, f"annotations.{i}.result.{j}")
        if not found:
            found = _ties(data, results, f"annotations.{i}.result")
        judgements += [(ranked, _known(annotation)) for ranked in found]
    said = {**data, **row}
    told = {
        name: said[name] for name in ("category", "language") if isinstance(said.get(name), str)
    }
    return judged(told | {"id": row["id"]}, prompt(data, "data"), judgements)


def _ranking(data: Row, result: Row, path: str) -> list[list[Response]]:
    value = result.get("value")
    if result.get("type") == "pairwise":
        selected = value.get("selected") if isinstance(value, Mapping) else None
        if selected not in ("left", "right"):
            raise ValueError(f"field '{path}.value.selected': expected left or right")
        sides = _sides(data, result, path)
        return [
            [
                Response(None, text(data, name, f"data.{name}"), int(side != selected))
                for side, name in zip(("left", "right"), sides, strict=True)
            ]
        ]
    if result.get("type") == "ranker" and isinstance(value, Mapping):
        return _buckets(data, value.get("ranker"), path)
    return []


def _ties(data: Row, results: list[Row], path: str) -> list[list[Response]]:
    """A tie, which `Pairwise` has no name for: a choice of `Choices` beside it, and no side."""
    for j, result in enumerate(results):
        value = result.get("value")
        choices = value.get("choices") if isinstance(value, Mapping) else None
        if isinstance(choices, list) and len(choices) == 1 and choices[0] == "tie":
            sides = _sides(data, result, f"{path}.{j}")
            return [[Response(None, text(data, name, f"data.{name}"), 0) for name in sides]]
    return []


def _sides(data: Row, result: Row, path: str) -> list[str]:
    """The fields that stood left and right: as the result says, or by their names."""
    named = result.get("to_name")
    names = re.split(r",\s*", named) if isinstance(named, str) else named or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"field '{path}.to_name': expected the names of two fields")
    if len(names) == 2 and all(name in data for name in names):
        return names
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    sides = sorted(name for name in texts if _SIDES.fullmatch(name))
    if len(sides) != 2:
        raise ValueError(f"field 'data': which two were compared is not seen in {', '.join(data)}")
    return sides


def _buckets(data: Row, ranker: Any, path: str) -> list[list[Response]]:
    """A ranking of each bucket, whose items are in order; "_" holds what was not ranked."""
    if isinstance(ranker, list):
        ranker = {"rank": ranker}
    if not isinstance(ranker, Mapping):
        raise ValueError(f"field '{path}.value.ranker': expected the buckets with their items")
    items = next(
        (
            {str(item["id"]): item for item in value}
            for value in data.values()
            if isinstance(value, list)
            and value
            and all(isinstance(item, Mapping) and "id" in item for item in value)
        ),
        {},
    )
    rankings = []
    for bucket in ranker:
        names = listed(ranker, bucket, f"{path}.value.ranker.{bucket}")
        unknown = [str(name) for name in names if str(name) not in items]
        if unknown:
            raise ValueError(
                f"field '{path}.value.ranker.{bucket}': no item {unknown[0]!r} in 'data'"
            )
        if bucket != "_":
            rankings.append(
                [Response(None, _shown(items[str(n)]), rank) for rank, n in enumerate(names)]
            )
    return rankings


def _shown(item: Row) -> str:
    field = next((name for name in ("body", "text", "html", "title") if item.get(name)), "body")
    return text(item, field, f"data.items.{field}")


def _known(annotation: Row) -> dict[str, Any]:
    """Who made it, and in how many milliseconds; `lead_time` is in seconds.

    Our own export has `annotator`: a name need be no account of the tool's.
    """
    who, seconds = annotation.get("completed_by"), annotation.get("lead_time")
    who = annotation.get("annotator", who)
    who = who.get("email", who.get("id")) if isinstance(who, Mapping) else who
    told = {"annotator": None if who is None else str(who)}
    is_time = isinstance(seconds, int | float)
    return told | ({"milliseconds": 1000 * seconds} if is_time else {})


LAYOUT = Layout("labelstudio", recognises, pairs)
