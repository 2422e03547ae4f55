"""The commands `data check` and `data convert`."""

import json

import pytest

from glm_jax.data import records
from glm_jax.data.records import Pair
from glm_jax.data.sources import open_pairs
from glm_jax.train import cli

ASK = [{"role": "user", "content": "a fox"}]
PAIRS = [
    Pair(id=str(i), prompt=ASK, chosen="yes", rejected="no", category=kind, language="en")
    for i, kind in enumerate(("qa", "qa", None))
]


@pytest.fixture
def source(tmp_path):
    records.write(tmp_path / "pairs.jsonl", PAIRS)
    return tmp_path / "pairs.jsonl"


def test_check_says_what_a_file_holds(source, capsys):
    assert cli.main(["data", "check", str(source)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{source}: layout glm-rlhf, 3 pairs in 3 rows",
        "  language: in 3 pairs",
        "  category: in 2 pairs",
        "  qa/en: 2 pairs",
        "  en: 1 pairs",
    ]


def test_check_lists_wrong_rows_and_counts_the_rest(source, capsys):
    with open(source, "a") as file:
        for row in ({"chosen": 1}, [], 5, {"prompt": ASK, "chosen": "a"}):
            file.write(json.dumps(row) + "\n")
    assert cli.main(["data", "check", str(source), "--max-errors", "2"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"{source}:4: field 'prompt' is missing")
    assert told[1] == f"{source}:5: expected a JSON object, got list"
    assert told[2:] == [f"glm-rlhf: error: {source}: 4 of 7 rows are wrong, 2 of them not shown"]


def test_check_counts_zeros_and_refuses_a_file_without_pairs(tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    records.write(path, [Pair(id="1", prompt=ASK, chosen="a", rejected="b", margin=0.0)])
    assert cli.main(["data", "check", str(path)]) == 0
    assert "  margin: in 1 pairs" in capsys.readouterr().out
    path.write_text('{"prompt": "a", "responses": [{"text": "b", "rank": 1}]}')
    assert cli.main(["data", "check", str(path)]) == 2
    assert f"error: {path}: no pair in any of its rows" in capsys.readouterr().err


def test_convert_there_and_back(source, tmp_path, capsys):
    there, back = str(tmp_path / "hh.jsonl.zst"), str(tmp_path / "back.jsonl")
    assert cli.main(["data", "convert", str(source), "--output", there, "--to", "hh"]) == 0
    assert "layout glm-rlhf; wrote 3 pairs to" in capsys.readouterr().out
    assert open_pairs(there).layout == "hh"
    assert cli.main(["data", "convert", there, "--layout", "hh", "--output", back]) == 0
    assert records.read(back, Pair) == PAIRS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--output", "out.jsonl", "--layout", "hhh"],
            "unknown layout 'hhh'; there are: auto, glm",
        ),
        (
            ["--output", "out.jsonl", "--layout", "hh"],
            "pairs.jsonl:1: field 'prompt': expected text",
        ),
        (["--output", "out.jsonl", "--to", "ranked"], "cannot be written as 'ranked'"),
        (["--output", "out.csv"], "out.csv: a name that ends in .csv; expected .jsonl,"),
        (
            ["--output", "out.parquet", "--to", "hh"],
            "out.parquet: the layout hh is written as .json",
        ),
    ],
)
def test_convert_says_what_is_wrong(source, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "convert", source.name, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [source]
