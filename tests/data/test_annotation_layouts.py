"""Exports of annotation tools: a pair for each judgement, by whom and how fast."""

import json
from pathlib import Path

import pytest

from glm_jax.data.filters import filter_pairs
from glm_jax.data.records import Pair
from glm_jax.data.sources import open_pairs


def read(tmp_path: Path, row: dict, **how: str) -> tuple[str, list[Pair]]:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([row], indent=2))
    file = open_pairs(path, **how)
    return file.layout, list(file)


FIELDS = {"prompt": "Sky?", "response1": "Blue.", "response2": "Green."}
RANKING = [{"value": "response2", "rank": 1}, {"value": "response1", "rank": 2}]
IN_COLUMNS = {"rank": [1, 2], "value": ["response1", "response2"]}
ARGILLA = {
    "labels": {
        "id": "r",
        "fields": FIELDS,
        "metadata": {"category": "qa"},
        "suggestions": {},
        "responses": {
            "preference": [
                {"value": "response1", "user_id": "u"},
                {"value": "response2", "user_id": "v"},
            ],
            "comment": [{"value": "well", "user_id": "u"}],
        },
        "vectors": {},
        "_server_id": "s",
    },
    "columns": FIELDS | {
        "id": "r",
        "category": "qa",
        "preference.responses": ["response1", "response1", "response2"],
        "preference.responses.users": ["u", "w", "v"],
        "preference.responses.status": ["submitted", "discarded", "submitted"],
    },
    "version 1": FIELDS | {
        "id": "r",
        "category": "qa",
        "preference": [
            {"user_id": "u", "value": IN_COLUMNS, "status": "submitted"},
            {"user_id": "v", "value": RANKING, "status": "submitted"},
            {"user_id": "w", "value": RANKING, "status": "draft"},
        ],
        "preference-suggestion": {"rank": [], "value": []},
        "external_id": "e",
    },
    "ratings": {
        "id": "r",
        "fields": {"instruction": "Sky?", "generation-0": "Blue.", "generation-1": "Green."},
        "metadata": {"category": "qa"},
        "responses": {
            "generation-0-rating": [{"value": 5, "user_id": "u"}, {"value": 1, "user_id": "v"}],
            "generation-1-rating": [{"value": 2, "user_id": "u"}, {"value": 3, "user_id": "v"}],
            "generation-1-rationale": [{"value": "so", "user_id": "u"}],
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ARGILLA)
def test_argilla_has_a_pair_for_each_annotator(tmp_path, kind):
    layout, pairs = read(tmp_path, ARGILLA[kind])
    told = [(p.id, p.annotator, p.chosen, p.rejected, p.category, p.prompt_id) for p in pairs]
    assert layout == "argilla" and told == [
        ("r.1", "u", "Blue.", "Green.", "qa", "r"),
        ("r.2", "v", "Green.", "Blue.", "qa", "r"),
    ]


def task(result: dict, *, data: dict, **more) -> dict:
    annotation = {"id": 9, "result": [result], "was_cancelled": False, "lead_time": 4.5}
    return {"id": 3, "data": data, "annotations": [annotation | {"completed_by": 10} | more]}


def test_label_studio_pairwise(tmp_path):
    data = {"prompt": "Sky?", "answer1": "Blue.", "answer2": "Green.", "set": "qa"}
    right = {"to_name": "answer1", "type": "pairwise", "value": {"selected": "right"}}
    left = right | {"value": {"selected": "left"}}
    row = task(right, data=data)
    row["annotations"] += task(left, data=data, completed_by={"email": "e"})["annotations"]
    row["annotations"] += task({}, data=data, was_cancelled=True)["annotations"]
    layout, pairs = read(tmp_path, row, category="set")
    told = [(p.id, p.annotator, p.chosen, p.rejected, p.category, p.milliseconds) for p in pairs]
    assert layout == "labelstudio" and told == [
        ("3.1", "10", "Green.", "Blue.", "qa", 4500.0),
        ("3.2", "e", "Blue.", "Green.", "qa", 4500.0),
    ]


def test_label_studio_ranker(tmp_path):
    items = [{"id": name, "title": name.upper(), "body": f"body {name}"} for name in "abc"]
    result = {"type": "ranker", "value": {"ranker": {"_": ["a"], "rank": ["c", "b"]}}}
    _, pairs = read(tmp_path, task(result, data={"prompt": "Sky?", "items": items}))
    told = [(p.id, p.chosen, p.rejected, p.tie) for p in pairs]
    assert told == [("3.1", "body c", "body b", False)]


SIDES = {"left": "response1", "right": "response2"}
RECORDS = {
    "ranked": lambda i, one, two, side: {
        "id": i,
        "prompt": "q",
        "responses": [
            {"text": one, "rank": int(side == "right")},
            {"text": two, "rank": int(side == "left")},
        ],
    },
    "argilla": lambda i, one, two, side: {
        "id": i,
        "fields": {"prompt": "q", "response1": one, "response2": two},
        "responses": {"best": [{"user_id": i, "value": SIDES[side]}]},
    },
    "labelstudio": lambda i, one, two, side: task(
        {"type": "pairwise", "to_name": "answer1,answer2", "value": {"selected": side}},
        data={"prompt": "q", "answer1": one, "answer2": two},
        completed_by=i,
    ) | {"id": i},
}  # fmt: skip


@pytest.mark.parametrize("layout", RECORDS)
def test_responses_are_told_apart_by_text_not_by_their_place_in_a_record(tmp_path, layout):
    shown = [("a", "b", "left"), ("c", "d", "right"), ("b", "a", "right")]
    rows = [RECORDS[layout](str(i), *judged) for i, judged in enumerate(shown)]
    (path := tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = open_pairs(path)
    kept, dropped = filter_pairs(list(file))
    assert file.layout == layout
    assert [(p.chosen, p.rejected, p.votes and p.votes["chosen"]) for p in kept] == [
        ("a", "b", 2),
        ("d", "c", None),
    ]
    assert [reason for _, reason in dropped] == ["added_up"]
