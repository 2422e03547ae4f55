"""A row that its layout cannot read: the message names the field."""

import json

import pytest

from glm_jax.data import layouts
from glm_jax.data.sources import open_pairs
from glm_jax.errors import InputError

ASK = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}
FIELDS = {"prompt": "Sky?", "response1": "Blue.", "response2": "Green."}


def task(kind: str, value: dict) -> dict:
    return {"data": FIELDS, "annotations": [{"result": [{"type": kind, "value": value}]}]}


def trl(prompt: list, chosen: list) -> dict:
    return {"prompt": prompt, "chosen": chosen, "rejected": []}


def argilla(*answers: dict) -> dict:
    return {"fields": FIELDS, "responses": {"q": list(answers)}}


def ranked(**response: object) -> dict:
    return {"prompt": "a", "responses": [response]}


def both(text: str) -> dict:
    return {"chosen": text, "rejected": text}


def alpaca(**more: object) -> dict:
    return {"instruction": "a", "chosen": "c", "rejected": "d", **more}


def sharegpt(*conversations: dict, **more: object) -> dict:
    return {"conversations": list(conversations), "chosen": {}, "rejected": {}, **more}


ALIEN = {"role": "alien", "content": ""}
OTHER = {"chosen": [ASK, ANSWER], "rejected": [{"role": "user", "content": "c"}, ANSWER]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": [], **both("a")}, "field 'prompt' is empty"),
        (trl([ASK], [ASK]), "'chosen': expected one message"),
        (trl([ALIEN], []), r"'prompt\.0\.role': .*alien"),
        (trl([ASK], [{"role": "assistant"}]), r"'chosen\.0\.content' is missing"),
        (trl([ASK], ["b"]), r"'chosen\.0': expected an object, got 'b'"),
        (OTHER, "begin differently"),
        ({"chosen": "The sky", "rejected": "A sky"}, "begin differently"),
        (both("same"), "no prompt is seen"),
        (both("\n\nHuman: a"), "'chosen': expected the last turn"),
        (alpaca(history=[["b"]]), r"'history\.0'"),
        (alpaca(input=5), "'input': expected text, got 5"),
        (sharegpt({"from": "human"}), r"'conversations\.0\.value' is missing"),
        (sharegpt(tools="[f]"), "'tools'"),
        (sharegpt({"from": "human", "value": "a"}), r"'chosen\.from' is missing"),
        (ranked(rank="best", text="b"), r"'responses\.0\.rank': .*'best'"),
        (ranked(rank=1, text=5), r"'responses\.0\.text': expected text"),
        (
            {"prompt": {"role": "prompter", "text": None, "replies": []}},
            r"'prompt\.text' is missing",
        ),
        (argilla({"value": "x", "user_id": "u"}), "none of the questions q"),
        (argilla({"value": "response1"}), r"'q\.0\.user_id' is missing"),
        (task("pairwise", {}), r"'annotations\.0\.result\.0\.value\.selected'"),
        (task("ranker", {"ranker": {"r": ["z"]}}), "no item 'z'"),
    ],
)
def test_the_wrong_field_is_named(tmp_path, row, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row))
    assert layouts.recognised(row)
    with pytest.raises(InputError, match=rf"pairs\.jsonl:1: .*{message}") as error:
        list(open_pairs(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
@pytest.mark.parametrize(
    "row",
    [{}, {"prompt": 5, "chosen": 5, "rejected": None}, {"data": 1, "fields": []}, {"prompt": {}}],
)
def test_a_forced_layout_says_what_it_misses(tmp_path, layout, row):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(InputError, match=r"pairs\.jsonl:1: .*field"):
        list(open_pairs(path, layout))
