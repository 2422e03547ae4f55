"""The report on preference data against counts made another way."""

import gzip
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_report import HOSTILE, Page

from glm_jax.data.records import Pair, write
from glm_jax.errors import InputError
from glm_jax.train import cli
from glm_jax.train.reports import data_report, pipeline_report

REAL = Path(__file__).parents[3] / "shared/data/real_pairs_open_train.jsonl.gz"


def made_up(n=400):
    draw = np.random.default_rng(0)
    return [
        Pair(
            id=f"p{i}",
            prompt=[{"role": "user", "content": f"question {i // 2}"}],
            chosen="x" * int(draw.integers(5, 90)),
            rejected="y" * int(draw.integers(1, 80)),
            category=["qa", "chat"][i % 2],
        )
        for i in range(n)
    ]


def real():
    return [
        Pair(
            id=str(i), prompt=row["prompt"], chosen=row["chosen"], rejected=row["rejected"],
            category=row["set"], language=row["lang"],
        )
        for i, row in enumerate(map(json.loads, gzip.decompress(REAL.read_bytes()).splitlines()))
    ]  # fmt: skip


def wilson(wins, n):
    """The ends are the roots of (p - wins/n)^2 = z^2 p (1 - p) / n."""
    z2, share = 1.959964**2, wins / n
    return sorted(np.roots([1 + z2 / n, -(2 * share + z2 / n), share**2]).real)


def check(values, pairs):
    groups = {}
    for pair in pairs:
        name = pair.category + ("" if pair.language is None else f"/{pair.language}")
        for group in ("all", name):
            groups.setdefault(group, []).append(pair)
    assert values["sizes"].keys() == values["bias"]["before"].keys() == groups.keys()
    for name, members in groups.items():
        row, n = values["sizes"][name], len(members)
        assert row["comparisons"] == n
        assert row["prompts"] == len({json.dumps(pair.prompt) for pair in members})
        roles = [message["role"] for pair in members for message in pair.prompt]
        assert row["turns"] == pytest.approx(roles.count("user") / n)
        history = sum(len(m["content"]) for pair in members for m in pair.prompt[:-1])
        assert row["history"] == pytest.approx(history / n)
        assert row["response"] == pytest.approx(
            sum(len(pair.chosen) + len(pair.rejected) for pair in members) / 2 / n
        )
        found = values["bias"]["before"][name]
        longer = sum(len(pair.chosen) > len(pair.rejected) for pair in members)
        shorter = sum(len(pair.chosen) < len(pair.rejected) for pair in members)
        assert (found["n"], found["equal"]) == (longer + shorter, n - longer - shorter)
        assert found["share"] == pytest.approx(longer / (longer + shorter))
        assert found["ci95"] == pytest.approx(wilson(longer, longer + shorter))
        # Pearson's correlation over both orders of every pair
        signs = [sign for _ in members for sign in (1, -1)]
        steps = [s * (len(pair.chosen) - len(pair.rejected)) for pair in members for s in (1, -1)]
        assert found["length_correlation"] == pytest.approx(np.corrcoef(signs, steps)[0, 1])
        ratios = [
            s * math.log((len(pair.chosen) + 1) / (len(pair.rejected) + 1))
            for pair in members
            for s in (1, -1)
        ]
        assert found["log_length_correlation"] == pytest.approx(np.corrcoef(signs, ratios)[0, 1])
    for row in values["gaps"]:
        inside = [
            len(pair.chosen) > len(pair.rejected)
            for pair in pairs
            if row["low"] <= abs(len(pair.chosen) - len(pair.rejected)) < row["high"]
        ]
        assert row["before"]["n"] == len(inside)
        assert row["before"]["share"] == pytest.approx(sum(inside) / len(inside))
    assert sum(row["before"]["n"] for row in values["gaps"]) == values["bias"]["before"]["all"]["n"]
    after = values["bias"]["after"]
    assert all(row["share"] == 0.5 for row in after.values() if row["n"])
    kept = sum(row["kept"] for row in values["balance"]["rows"])
    assert after["all"]["n"] + after["all"]["equal"] == kept == values["length_model"]["after"]["n"]


def test_numbers_of_made_up_pairs_agree_with_another_count():
    check(data_report.data_report(made_up()), made_up())


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/data/real_pairs_open_train")
def test_numbers_of_real_pairs_agree_with_another_count():
    values = data_report.data_report(real())
    check(values, real())
    assert 0.58 < values["length_model"]["before"]["accuracy"] < 0.62


def test_the_command_writes_a_whole_page_and_prints_the_table(tmp_path, capsys):
    pairs = tmp_path / "pairs.jsonl"
    write(pairs, made_up(120))
    assert cli.main(["data", "report", str(pairs), "--group", "category"]) == 0
    shown = capsys.readouterr().out
    assert "qa" in shown and "length alone is right" in shown
    folder = tmp_path / "pairs-report"
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "://" not in text and page.tags.count("table") == page.tags.count("caption") >= 2
    (folder / "report.html").unlink()
    assert cli.main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text(encoding="utf-8") == text
    capsys.readouterr()
    assert cli.main(["data", "report", str(pairs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "report.json").read_text())


def test_hostile_names_are_shown_not_run(tmp_path):
    pairs = made_up(40)
    object.__setattr__(pairs[0], "category", HOSTILE)
    values = data_report.data_report(pairs, title=HOSTILE, file=HOSTILE, model=HOSTILE)
    page = Page(data_report.write(tmp_path, values).read_text(encoding="utf-8"))
    assert "script" not in page.tags and "<script>alert(1)</script>" in page.text
    Console(file=io.StringIO()).print(data_report.told(values))


def test_a_sample_says_that_it_is_one(tmp_path):
    pairs = made_up(200)
    values = data_report.data_report(iter(pairs), size=50)
    assert (values["source"]["comparisons"], values["source"]["read"]) == (200, 50)
    assert "This is a sample" in data_report.write(tmp_path, values).read_text(encoding="utf-8")
    whole = data_report.data_report(pairs)
    assert "This is a sample" not in data_report.write(tmp_path, whole).read_text(encoding="utf-8")


def test_extreme_files(tmp_path):
    one = made_up(1)
    pipeline_report.write(data_report.write(tmp_path, data_report.data_report(one)).parent)
    same = [Pair(id=str(i), prompt=p.prompt, chosen="ab", rejected="cd")
            for i, p in enumerate(made_up(3))]  # fmt: skip
    values = data_report.data_report(same)
    assert values["bias"]["before"]["all"]["share"] is None and values["gaps"] == []
    text = data_report.write(tmp_path, values).read_text(encoding="utf-8")
    assert "None" not in text and "nan" not in text
    ties = [Pair(id="1", prompt=one[0].prompt, chosen="a", rejected="b", tie=True)]
    with pytest.raises(InputError, match="no pairs to report on, 1 are ties"):
        data_report.data_report(ties)
