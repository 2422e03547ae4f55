"""The report of a reward model's run against numbers made another way."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from test_data_report import wilson
from test_report import HOSTILE, Page

from glm_jax.data.records import Pair
from glm_jax.errors import InputError
from glm_jax.train import cli
from glm_jax.train.reports import (
    html_page,
    pipeline_report,
    reward_figures,
    reward_numbers,
    reward_report,
)
from glm_jax.train.reports.reward_schema import RewardReport

N = 600


def rows(n=N):
    draw = np.random.default_rng(0)
    made = []
    for i in range(n):
        chosen, rejected = (int(x) for x in draw.integers(1, 200, 2))
        margin = draw.normal(0.4) + 0.004 * (chosen - rejected)
        level = draw.normal() + (i % 3 == 0)
        made.append(
            {
                "id": f"pair {i}", "category": ["qa", "chat", None][i % 3], "language": "en",
                "balanced": bool(draw.random() < 0.5), "chosen_score": level + margin / 2,
                "rejected_score": level - margin / 2, "chosen_tokens": chosen,
                "rejected_tokens": rejected, "prompt_tokens": 9, "turns": 1,
            }
        )  # fmt: skip
    return made


def texts(made):
    hostile = HOSTILE.replace("\ud800", "")  # which no file of pairs can hold
    prompt = [{"role": "user", "content": f"why? {hostile}"}]
    return [
        Pair(id=row["id"], prompt=prompt, chosen=hostile + "x" * 9000, rejected="no")
        for row in made
    ]


def made_pair(i, chosen, rejected):
    prompt = [{"role": "user", "content": f"question {i}"}]
    return Pair(id=f"{i}", prompt=prompt, chosen="x" * chosen, rejected="y" * rejected)


@pytest.fixture
def run(tmp_path):
    write(tmp_path, rows())
    steps = [
        {"step": i, "loss": 0.7 - i / 100, "score": i / 10, "score_spread": 1.0} for i in range(9)
    ]
    lines(tmp_path / "metrics.jsonl", steps)
    found = {"balanced_loss": 0.6, "loss": 0.7, "score": 0.1, "score_spread": 0.4}
    lines(tmp_path / "evaluations.jsonl", [{"step": step, **found} for step in (0, 5, 9)])
    (tmp_path / "config.yaml").write_text("l2: 0.01\n")
    return tmp_path


def write(folder, made):
    lines(folder / "scores.jsonl", made)


def lines(path, made):
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")


def right(made):
    return sum(row["chosen_score"] > row["rejected_score"] for row in made)


def test_numbers_agree_with_another_count(run):
    values, made = reward_report.reward_report(run), rows()
    sets = {"as_they_are": made, "balanced": [row for row in made if row["balanced"]]}
    for name, part in sets.items():
        found = values["pairs"][name]
        assert found["n"] == len(part) and found["accuracy"] == pytest.approx(
            right(part) / len(part)
        )
        assert found["ci95"] == pytest.approx(wilson(right(part), len(part)))
        margins = [row["chosen_score"] - row["rejected_score"] for row in part]
        steps = [row["chosen_tokens"] - row["rejected_tokens"] for row in part]
        assert found["loss"] == pytest.approx(
            sum(-math.log(1 / (1 + math.exp(-margin))) for margin in margins) / len(part)
        )
        both = np.array(
            [(s * m, s * d) for m, d in zip(margins, steps, strict=True) for s in (1, -1)]
        )
        assert found["length_correlation"] == pytest.approx(np.corrcoef(both.T)[0, 1])
        assert found["by_category"].keys() == {"qa", "chat", "(none)"}
        for category, numbers in found["by_category"].items():
            inside = [row for row in part if (row["category"] or "(none)") == category]
            assert numbers["n"] == len(inside)
            assert numbers["accuracy"] == pytest.approx(right(inside) / len(inside))
        assert found["by_language"]["en"]["n"] == sum(gap["n"] for gap in found["by_gap"])
        for gap in found["by_gap"]:
            inside = [
                row
                for row, step in zip(part, steps, strict=True)
                if gap["low"] <= abs(step) < gap["high"]
            ]
            assert gap["accuracy"] == pytest.approx(right(inside) / len(inside))
    scores = [row["rejected_score"] for row in made if row["category"] == "qa"]
    assert values["scores"]["qa"]["rejected"]["mean"] == pytest.approx(sum(scores) / len(scores))
    assert values["scores"]["qa"]["rejected"]["p50"] == pytest.approx(sorted(scores)[100], abs=0.05)
    wrong = [row for row in made if row["chosen_score"] < row["rejected_score"]]
    surest = min(wrong, key=lambda row: row["chosen_score"] - row["rejected_score"])
    assert values["mistakes"][0]["id"] == surest["id"] and len(values["mistakes"]) == 20
    assert values["mistakes"][0]["probability"] > values["mistakes"][1]["probability"] > 0.5


def test_a_model_that_means_what_it_says_is_calibrated_and_a_loud_one_is_not():
    draw = np.random.default_rng(1)
    logits = draw.normal(0, 1.5, 20_000)
    truth = draw.random(20_000) < 1 / (1 + np.exp(-logits))
    margins_N, places = np.where(truth, logits, -logits), range(20_000)
    honest = reward_numbers.calibration(places, margins_N)
    assert honest["error"] < 0.02
    for one in honest["bins"]:
        assert one["low"] <= one["predicted"] <= one["high"]
        assert one["ci95"][0] - 0.02 < one["predicted"] < one["ci95"][1] + 0.02
    assert reward_numbers.calibration(places, 4 * margins_N)["error"] > 0.1


def test_length_alone_is_fitted_on_the_training_pairs_where_they_are_given(run):
    training = [made_pair(i, 20, 150) for i in range(300)]  # the shorter one is the better
    given = reward_report.reward_report(run, training=training)
    assert given["length_only_fit"] == "training_pairs"
    folds = reward_report.reward_report(run)
    assert folds["length_only_fit"] == "held_out_folds" and folds["data"] == {}
    shorter = sum(row["chosen_tokens"] < row["rejected_tokens"] for row in rows())
    alone = given["pairs"]["as_they_are"]["length_only"]
    assert alone == pytest.approx(shorter / N, abs=0.02)


def test_the_data_are_told_as_they_are_and_balanced(run):
    training = [made_pair(i, 30, 10 + i % 9) for i in range(200)]
    training += [made_pair(200 + i, 10 + i % 9, 30) for i in range(100)]
    held_out = [
        made_pair(i, r["chosen_tokens"], r["rejected_tokens"]) for i, r in enumerate(rows())
    ]
    found = reward_report.reward_report(run, training=training, held_out=held_out)["data"]
    assert found["training"]["sizes"]["all"]["comparisons"] == 300
    assert found["training"]["sizes"]["all"]["chosen"] == pytest.approx(
        sum(len(pair.chosen) for pair in training) / 300
    )
    assert found["training"]["bias"]["before"]["all"]["share"] == pytest.approx(2 / 3)
    assert {gap["after"]["share"] for gap in found["training"]["gaps"]} == {0.5}
    left = [row for row in rows() if row["balanced"]]  # those that the run itself left
    unequal = [row for row in left if row["chosen_tokens"] != row["rejected_tokens"]]
    longer = sum(row["chosen_tokens"] > row["rejected_tokens"] for row in unequal)
    after = found["held_out"]["bias"]["after"]["all"]
    assert (after["n"], after["share"]) == (len(unequal), pytest.approx(longer / len(unequal)))
    values = reward_report.reward_report(run, training=training, held_out=held_out)
    report = html_page.parse(RewardReport, values)
    drawn = reward_figures.figures(report)
    assert len(drawn["data training"]) == len(drawn["data held_out"]) == 2
    assert drawn["training"][0].title == "Level of the scores, and their spread"
    assert all(panel.svg in reward_report.page(report) for panel in drawn["data training"])


def test_pairs_of_one_id_keep_their_own_texts_and_are_swapped_apart(run):
    made, pairs = rows(), texts(rows())
    pairs = [dataclasses.replace(p, id="same", chosen=f"of row {i}") for i, p in enumerate(pairs)]
    told = [row | {"id": "same", "row": i} for i, row in enumerate(made)]
    write(run, told[::-1])  # a line's own row is what counts
    found = reward_report.reward_report(run, held_out=pairs)
    for wrong in found["mistakes"]:
        row = int(wrong["chosen"].removeprefix("of row "))
        assert wrong["chosen_score"] == made[row]["chosen_score"]
    write(run, made)  # without rows they are the lines
    expected = reward_report.reward_report(run)["calibration"]
    assert found["calibration"]["error"] == pytest.approx(expected["error"])
    assert any(0 < one["observed"] < 1 for one in expected["bins"])


def test_a_category_called_all_stays_apart_from_all_pairs(run):
    made = [row | {"category": "all"} if row["category"] == "qa" else row for row in rows()]
    write(run, made)
    scores = reward_report.reward_report(run)["scores"]
    assert scores["all"]["chosen"]["n"] == 600 and scores["all (group)"]["chosen"]["n"] == 200


def test_the_spread_of_a_steps_scores_is_drawn_from_their_size(run):
    lines(run / "metrics.jsonl", [{"step": i, "score": 3.0, "score_size": 5.0} for i in range(3)])
    report = html_page.parse(RewardReport, reward_report.reward_report(run))
    level = reward_figures.level(report.training)
    assert (level.low, level.high) == ([-1.0] * 3, [7.0] * 3)


def test_page_is_whole_tells_why_accuracies_differ_and_runs_nothing(run):
    text = reward_report.write(run, held_out=texts(rows())).read_text(encoding="utf-8")
    page = Page(text)
    assert "://" not in text and "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text and "7,8" in page.text
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)
    for panel in ("Level of the scores", "The same on held-out pairs", "Ranking loss on held-out"):
        assert panel in page.text
    assert "as far as the labels carry the annotators' liking for length" in page.text
    assert "None" not in page.text and "nan" not in page.text
    ids = [value for name, value in page.attributes if name == "id"]
    links = [value[1:] for name, value in page.attributes if name == "href" and value != "data:,"]
    assert set(links) <= set(ids) and len(set(ids)) == len(ids)
    assert pipeline_report.write(run).read_text(encoding="utf-8") == text


def test_the_command_report_draws_a_reward_run(run, capsys):
    assert cli.main(["report", str(run)]) == 0
    assert json.loads((run / "report.json").read_text())["kind"] == "reward"
    assert "Reward model" in (run / "report.html").read_text(encoding="utf-8")


def test_few_pairs_and_none_balanced_make_a_page(run):
    made = [row | {"balanced": False, "category": None, "language": None} for row in rows(1)]
    write(run, made)
    (run / "metrics.jsonl").unlink()
    page = Page(reward_report.write(run).read_text(encoding="utf-8"))
    assert "liking for length" not in page.text and "nan" not in page.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "1"}', "scores.jsonl:601: balanced: field required"),
        ("nonsense", "scores.jsonl:601: the line: invalid json"),
        (json.dumps(rows(1)[0] | {"chosen_score": None}), "scores.jsonl:601: chosen_score: "),
    ],
)
def test_a_bad_line_is_one_clear_line(run, line, message):
    with open(run / "scores.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        reward_report.reward_report(run)
    assert "\n" not in str(raised.value)
