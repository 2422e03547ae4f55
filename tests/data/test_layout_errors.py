"""A row that its layout cannot read: the message names the field."""

import copy
import json
from collections.abc import Iterator
from functools import reduce
from operator import getitem

import pytest

from glm_jax.data import layouts
from glm_jax.data.layouts import LAYOUTS, llamafactory
from glm_jax.data.records import Pair
from glm_jax.data.sources import name, open_pairs
from glm_jax.errors import InputError

ASK = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}
FIELDS = {"prompt": "Sky?", "response1": "Blue.", "response2": "Green."}


def task(kind: str, value: dict) -> dict:
    return {"data": FIELDS, "annotations": [{"result": [{"type": kind, "value": value}]}]}


def compared(to_name: object) -> dict:
    row = task("pairwise", {"selected": "left"})
    row["annotations"][0]["result"][0]["to_name"] = to_name
    return row


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
        (compared(5), r"'annotations\.0\.result\.0\.to_name'"),
        (compared([["a"], ["b"]]), r"'annotations\.0\.result\.0\.to_name'"),
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


TREE = {
    "message_tree_id": "t",
    "prompt": {
        "role": "prompter",
        "text": "q",
        "replies": [
            {"role": "assistant", "text": text, "rank": rank, "message_id": text}
            for rank, text in enumerate("ab")
        ],
    },
}
COLUMNS = FIELDS | {
    "q.responses": ["response1"],
    "q.responses.users": ["u"],
    "q.responses.status": ["submitted"],
}
PAIR = Pair(id="1", prompt=[ASK, ANSWER, ASK], chosen="x", rejected="y", votes=None, margin=0.5)
ITEMS = {"prompt": "a", "items": [{"id": "a", "body": "b"}]}
SAMPLES = [
    *((name, LAYOUTS[name].row(PAIR)) for name in ("glm-rlhf", "trl", "trl-implicit", "hh")),
    *((layout.name, layout.row(PAIR)) for layout in llamafactory.LAYOUTS),
    ("trl-standard", {"prompt": "a", **both("b")}),
    ("trl-standard-implicit", {"chosen": "the sky", "rejected": "the sea"}),
    ("ranked", {"prompt": "a", "responses": [{"text": "b", "rank": 1}, {"text": "c", "rank": 2}]}),
    ("oasst", TREE),
    ("argilla", argilla({"value": "response1", "user_id": "u"})),
    ("argilla", argilla({"value": [{"value": "response1", "rank": 1}], "user_id": "u"})),
    ("argilla", COLUMNS),
    ("labelstudio", task("pairwise", {"selected": "left"})),
    ("labelstudio", task("ranker", {"ranker": {"r": ["a"]}}) | {"data": ITEMS}),
]  # fmt: skip
ODD = [None, 5, -1.5, True, "", "x", "\n\nHuman:", [], {}, [5], [None], [[]], [{}], {"a": 5}]


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in inner:
        yield (*path, key)
        if isinstance(entry, dict | list):
            yield from places(entry, (*path, key))


@pytest.mark.parametrize(("layout", "sample"), SAMPLES)
def test_whatever_stands_anywhere_is_read_or_refused_in_one_line(layout, sample):
    assert LAYOUTS[layout].pairs({"id": "1", **sample}) is not None
    assert layouts.recognised(sample) == layout
    for path in places(sample):
        for odd in ODD:
            row = copy.deepcopy(sample)
            reduce(getitem, path[:-1], row)[path[-1]] = odd
            name(row, 1, None, None)
            layouts.recognised(row)
            try:
                LAYOUTS[layout].pairs(row)
            except ValueError as error:
                assert "\n" not in str(error), (path, odd)
