"""Every layout is recognised, read, and written back as it was, where it can be written."""

import json
from pathlib import Path

import pytest

from glm_jax.data.layouts import LAYOUTS
from glm_jax.data.records import Pair
from glm_jax.data.sources import open_pairs, write_pairs
from glm_jax.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data"


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [user("2 + 2?"), assistant("4."), user("And 你好?\n\nWell?")]
FULL = {
    "tie": True,
    "margin": 0.5,
    "strength": 2.0,
    "weight": 0.25,
    "category": "qa",
    "language": "zh",
    "annotator": "7",
    "milliseconds": 1500.0,
    "votes": {"chosen": 2, "rejected": 1, "tie": 0},
    "prompt_id": "p",
    "chosen_id": "a",
    "rejected_id": "b",
    "task": {"ask": [1, None]},
}
ONE = Pair(id="x", prompt=[user("2 + 2?")], chosen="4", rejected="5", **FULL)
SEVERAL = Pair(id="y", prompt=TURNS, chosen="4 is right.", rejected="4 is wrong.")
WITH_SYSTEM = Pair(id="z", prompt=[SYSTEM, *TURNS], chosen="4", rejected="")
HOLDS = {
    "glm-rlhf": [ONE, SEVERAL, WITH_SYSTEM],
    "trl": [ONE, SEVERAL, WITH_SYSTEM],
    "trl-implicit": [ONE, SEVERAL, WITH_SYSTEM],
    "trl-standard": [ONE],
    "hh": [ONE, SEVERAL],
    "llamafactory-alpaca": [ONE, SEVERAL, WITH_SYSTEM],
    "llamafactory-sharegpt": [ONE, SEVERAL, WITH_SYSTEM],
}


def read(tmp_path: Path, *rows: dict, **how: str) -> tuple[str, list[Pair]]:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = open_pairs(path, **how)
    return file.layout, list(file)


@pytest.mark.parametrize("layout", HOLDS)
def test_round_trip(tmp_path, layout):
    path = tmp_path / "pairs.jsonl"
    assert write_pairs(path, HOLDS[layout], layout) == len(HOLDS[layout])
    file = open_pairs(path)
    assert file.layout == layout and list(file) == HOLDS[layout]
    for line in path.read_text().splitlines():
        row = json.loads(line)
        assert [name for name, known in LAYOUTS.items() if known.recognises(row)] == [layout]


def test_every_layout_that_is_written_is_tested():
    assert HOLDS.keys() == {name for name, layout in LAYOUTS.items() if layout.row}


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data sets are not beside this checkout")
@pytest.mark.parametrize("layout", HOLDS)
def test_real_pairs_round_trip(tmp_path, layout):
    pairs = list(open_pairs(REAL / "real_pairs_open_train.jsonl.gz", category="set"))
    held = []
    for pair in pairs:
        try:
            LAYOUTS[layout].row(pair)
            held.append(pair)
        except ValueError:
            pass
    # one question only; texts without blanks at their ends; questions and answers by turns
    assert len(held) > {"trl-standard": 4000, "hh": 8500}.get(layout, 9400)
    write_pairs(tmp_path / "pairs.jsonl", held, layout)
    assert list(open_pairs(tmp_path / "pairs.jsonl")) == held


TWICE = Pair(id="y", prompt=TURNS[2:] * 2, chosen="a", rejected="b")


@pytest.mark.parametrize(
    ("layout", "pair", "message"),
    [
        ("trl-standard", SEVERAL, "'prompt': more than one question"),
        ("hh", WITH_SYSTEM, "'prompt': HH has no roles"),
        ("hh", Pair(id="y", prompt=TURNS, chosen=" a", rejected="b"), "blanks"),
        ("llamafactory-alpaca", TWICE, "questions and their answers, by turns"),
        ("ranked", ONE, "cannot be written as 'ranked'; there are: glm-rlhf, trl"),
    ],
)  # fmt: skip
def test_what_a_layout_cannot_hold_is_not_written(tmp_path, layout, pair, message):
    with pytest.raises(InputError, match=message):
        write_pairs(tmp_path / "pairs.jsonl", [pair], layout)
    assert not list(tmp_path.iterdir())


PAIR = Pair(id="1", prompt=[user("Sky?")], chosen="Blue.", rejected="Green.")


@pytest.mark.parametrize(
    ("layout", "row", "pairs"),
    [
        (
            "trl-standard-implicit",
            {"chosen": "The sky is blue.", "rejected": "The sky is brown."},
            [Pair(id="1", prompt=[user("The sky is ")], chosen="blue.", rejected="brown.")],
        ),
        (
            "trl-standard-implicit",
            {"chosen": "What’s your pet? I like dogs", "rejected": "What’s your pet? I like dolls"},
            [Pair(id="1", prompt=[user("What’s your pet? I like ")], chosen="dogs",
                  rejected="dolls")],
        ),
        (
            "trl-standard-implicit",
            {"chosen": "天空是蓝色", "rejected": "天空是绿色"},
            [Pair(id="1", prompt=[user("天空是")], chosen="蓝色", rejected="绿色")],
        ),
        (
            "trl",
            {
                "prompt": "Sky?",
                "chosen": [assistant("Blue.")],
                "rejected": [assistant("Green.")],
            },
            [PAIR],
        ),
        (  # the prompt repeats the question of the dialogues
            "trl-implicit",
            {
                "prompt": "Sky?",
                "chosen": [user("Sky?"), assistant("Blue.")],
                "rejected": [user("Sky?"), assistant("Green.")],
                "messages": [],
            },
            [PAIR],
        ),
        (  # both dialogues are the same: the last answer is still the response
            "trl-implicit",
            {"chosen": [user("Sky?"), assistant("a")], "rejected": [user("Sky?"), assistant("a")]},
            [Pair(id="1", prompt=[user("Sky?")], chosen="a", rejected="a")],
        ),
        (  # the dialogues part before their last turn
            "hh",
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: a\n\nAssistant: b",
                "rejected": "\n\nHuman: Hi\n\nAssistant: Ha",
            },
            [
                Pair(
                    id="1",
                    prompt=[user("Hi")],
                    chosen="Ho\n\nHuman: a\n\nAssistant: b",
                    rejected="Ha",
                )
            ],
        ),
        (
            "hh",
            {"prompt": "\n\nHuman: Sky?\n\nAssistant:", "chosen": " Blue.", "rejected": " Green."},
            [PAIR],
        ),
        (
            "llamafactory-alpaca",
            {"instruction": "Add.", "input": "2 2", "chosen": "4", "rejected": "5", "lang": "en"},
            [
                Pair(
                    id="1", prompt=[user("Add.\n2 2")], chosen="4", rejected="5", language="en"
                )
            ],
        ),
        (
            "llamafactory-sharegpt",
            {
                "conversations": [{"from": "human", "value": "Sky?"}],
                "chosen": {"from": "gpt", "value": "Blue."},
                "rejected": {"from": "gpt", "value": "Green."},
                "system": "",
                "tools": "",
            },
            [PAIR],
        ),
    ],
)  # fmt: skip
def test_what_other_programs_write_is_read(tmp_path, layout, row, pairs):
    assert read(tmp_path, row) == (layout, pairs)
    assert read(tmp_path, row, layout=layout) == (layout, pairs)


def ranked(pairs: list[Pair]) -> list[tuple]:
    return [(p.id, p.chosen, p.rejected, p.chosen_id, p.rejected_id, p.tie) for p in pairs]


def test_all_pairs_of_a_ranking(tmp_path):
    responses = [
        {"text": "not ranked"},
        {"text": "c", "rank": 2},
        {"text": "a", "rank": 0, "id": "best"},
        {"text": "b", "rank": 2},
        {"text": "not ranked", "rank": None},
    ]
    layout, pairs = read(tmp_path, {"id": 5, "prompt": "Sky?", "responses": responses})
    assert layout == "ranked" and {p.prompt_id for p in pairs} == {"5"}
    assert ranked(pairs) == [
        ("5.1", "a", "c", "best", None, False),
        ("5.2", "a", "b", "best", None, False),
        ("5.3", "c", "b", None, None, True),
    ]


def test_the_rankings_of_a_message_tree(tmp_path):
    def reply(name: str, role: str, rank: int | None = None, replies: tuple = ()) -> dict:
        said = {"message_id": name, "text": f"text {name}", "role": role, "lang": "es"}
        return said | {"rank": rank, "replies": list(replies)}

    follow_up = reply("q2", "prompter", 0, [reply("d", "assistant", 1), reply("c", "assistant", 0)])
    answers = [reply("b", "assistant", 1), reply("a", "assistant", 0, [follow_up])]
    row = {"message_tree_id": "t", "prompt": reply("q1", "prompter", None, answers)}
    layout, pairs = read(tmp_path, row)
    assert layout == "oasst"
    assert ranked(pairs) == [
        ("t.1", "text a", "text b", "a", "b", False),
        ("t.2", "text c", "text d", "c", "d", False),
    ]
    assert pairs[1].prompt == [user("text q1"), assistant("text a"), user("text q2")]
    assert [(p.prompt_id, p.language) for p in pairs] == [("q1", "es"), ("q2", "es")]
