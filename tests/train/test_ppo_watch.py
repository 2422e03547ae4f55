"""The arithmetic of watching: figures, the best policy, guards and alarms, by hand."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from glm_jax.checkpoint.pretrained import load_pretrained
from glm_jax.errors import InputError, RunStopped
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.ppo.alarms import Alarms, AlarmsConfig, correlation_rise, paired_gain
from glm_jax.train.ppo.guards import GuardsConfig, check_program, guard
from glm_jax.train.ppo.watch import distinct, figures, keep_best

METRICS = {
    "objective/kl": 2.0, "objective/kl_coef": 0.1, "objective/entropy": 1.5, "length": 30.0,
    "truncated": 0.2, "val/explained_variance": 0.3, "val/first_log_ratio": 1e-6,
}  # fmt: skip


def row(score, tokens, category="a", finish="stop", kl=0.0):
    return {
        "mode": "sampled", "category": category, "score": score, "tokens": tokens, "kl": kl,
        "length": len(tokens), "finish": finish,
    }  # fmt: skip


def test_figures_by_hand():
    sft = [row(1.0, [1]), row(2.0, [1]), row(3.0, [1], "b"), row(4.0, [1], "b")]
    ours = [
        row(1.5, [1, 2, 3, 4, 5], kl=1.0), row(2.0, [1, 2, 3, 4], kl=2.0),
        row(5.0, [1, 1, 1, 1, 1], "b", "length"), row(3.0, [7], "b", "repetition", kl=5.0),
    ]  # fmt: skip
    found = figures(ours, sft)
    expected = {
        "score": (11.5 / 4, 1.75, 4.0), "score_minus_reference": (1.5 / 4, 0.25, 0.5),
        "win_rate": (2.5 / 4, 0.75, 0.5), "kl": (2.0, 1.5, 2.5), "length": (15 / 4, 4.5, 3.0),
        "truncated": (0.25, 0.0, 0.5), "distinct_4": (3 / 5, 2 / 3, 1 / 2),
    }  # fmt: skip
    assert found == {
        f"eval/sampled/{name}{suffix}": pytest.approx(value)
        for name, values in expected.items()
        for suffix, value in zip(("", "/a", "/b"), values, strict=True)
    }
    assert distinct([[1, 2], [3]], 4) is None


def test_best_is_the_highest_within_the_budget(tiny, tmp_path):
    tokenizer = Tokenizer.word_level(["a", "fox"])
    seen = [(0.1, 0.0), (0.5, 3.0), (0.9, 4.5), (0.4, 1.0), (0.5, 1.0)]  # score, KL
    for i, (score, kl) in enumerate(seen):
        found = {"eval/sampled/score": score, "eval/sampled/kl": kl}
        keep_best(tmp_path, i, found, tiny(seed=i), tokenizer, budget=4.0)
    best = json.loads((tmp_path / "best.json").read_text())
    assert best == {"iteration": 1, "by": "score", "score": 0.5, "kl": 3.0}
    kept, first = load_pretrained(tmp_path / "best"), tiny(seed=1)
    assert np.array_equal(kept.embedding[...], first.embedding[...])
    found |= {"eval/sampled/heldout_score": 0.7, "eval/sampled/score": -9.0}
    keep_best(tmp_path, 5, found, tiny(), tokenizer, budget=None)  # the second model's word counts
    assert json.loads((tmp_path / "best.json").read_text())["by"] == "heldout_score"


@pytest.mark.parametrize(
    ("limit", "metric", "bad"),
    [
        ({"max_kl": 4.0}, "objective/kl", 4.1),
        ({"min_entropy": 0.5}, "objective/entropy", 0.4),
        ({"max_length_ratio": 1.5}, "length", 31.0),
        ({"max_truncated": 0.5}, "truncated", 0.6),
    ],
)
def test_each_guard_names_itself(limit, metric, bad):
    (name,) = limit
    assert guard(GuardsConfig(), 3, METRICS | {metric: bad}, sft_length=20.0) is None  # off
    assert guard(GuardsConfig(**limit), 3, METRICS, sft_length=20.0) is None
    with pytest.raises(RunStopped, match=f"guard {name}: iteration 3: .* the limit is"):
        guard(GuardsConfig(**limit), 3, METRICS | {metric: bad}, sft_length=20.0)


def test_an_adapting_guard_lets_the_run_go_on_and_the_others_still_stop_it():
    config = GuardsConfig(max_kl=1.0, on_max_kl="adapt", max_truncated=0.5)
    assert guard(config, 3, METRICS, 20.0).endswith("beta grows from 0.1 by half")
    with pytest.raises(RunStopped, match="max_truncated"):
        guard(config, 3, METRICS | {"truncated": 0.9}, 20.0)
    with pytest.raises(InputError, match="max_kl"):
        GuardsConfig(on_max_kl="adapt")


@pytest.mark.parametrize(
    ("dtype", "mean", "largest", "cause"),
    [
        ("float32", 0.9e-5, 0.9e-4, "positions"),
        ("bfloat16", 0.9e-4, 0.9e-3, "rounds old and new"),
    ],
)
def test_the_self_check_has_a_bound_for_each_dtype(dtype, mean, largest, cause):
    """It looks at the first iteration of a start alone: later there is no dtype to check by."""

    def metrics(times):
        ratios = {"val/first_log_ratio_avg": mean, "val/first_log_ratio": largest}
        return METRICS | {name: times * value for name, value in ratios.items()}

    check_program(0, metrics(1.0), dtype)
    check_program(1, metrics(1.3), None)
    with pytest.raises(RunStopped, match=f"self-check: .*{dtype}.*{cause}"):
        check_program(0, metrics(1.3), dtype)
    with pytest.raises(RunStopped, match="not finite: length"):
        check_program(5, METRICS | {"length": float("nan")}, None)


def rung(folder: Path) -> list[tuple[str, int]]:
    rows = map(json.loads, (folder / "alarms.jsonl").read_text().splitlines())
    return [(row["alarm"], row["step"]) for row in rows]


def iterations(folder, config, count, metrics=lambda i: {}, slope=lambda i: 0.0, start=0, n=50):
    """What rings in iterations of `n` answers each: score = slope length + noise."""
    with closing(Alarms(folder, config, start)) as alarms:
        for i in range(start, count):
            alarms.iteration(i, METRICS | metrics(i), *answers(i, slope, n))
    return rung(folder)


def answers(i, slope, n=50):
    rng = np.random.default_rng(i)
    lengths = rng.integers(5, 30, n)
    return slope(i) * (lengths - 17) / 7 + rng.normal(size=n), lengths


def test_the_kl_alarm_rings_once(tmp_path):
    found = iterations(tmp_path, AlarmsConfig(), 9, lambda i: {"objective/kl": float(i)})
    assert found == [("kl", 5)]


def test_the_length_alarm(tmp_path):
    """Windows of four: the first is 0 to 3; from 8 on score follows length."""
    config = AlarmsConfig(window=4)
    ((name, step),) = iterations(tmp_path / "rises", config, 16, slope=lambda i: 1.0 * (i >= 8))
    assert name == "length_correlation" and 8 <= step <= 10
    assert iterations(tmp_path / "stays", config, 16, slope=lambda i: 1.0) == []
    assert iterations(tmp_path / "few", config, 16, n=3) == []  # rises as well, by chance


def test_the_explained_variance_alarm_waits_for_the_warmup(tmp_path):
    config = AlarmsConfig(window=4, warmup=3)
    below = {"val/explained_variance": -0.1}

    def about_zero(i):
        return {"val/explained_variance": 0.1 * (-1) ** i - 0.001}

    low = iterations(tmp_path / "low", config, 9, lambda i: below)
    assert low == [("explained_variance", 6)]
    assert iterations(tmp_path / "early", config, 9, lambda i: below if i < 3 else {}) == []
    assert iterations(tmp_path / "zero", config, 9, about_zero) == []


def test_the_alarm_of_scores_that_go_apart(tmp_path):
    """The second model's is highest at 10; the own one's rise since then must be clear."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=100)
    own = {i: base + gain for i, gain in {0: 0.0, 10: 0.5, 20: 0.51, 30: 0.9}.items()}
    own = {i: scores + 0.3 * rng.normal(size=100) for i, scores in own.items()}
    held = {0: base, 10: base + 0.4, 20: base + 0.35, 30: base + 0.35}

    def look(folder, held):
        with closing(Alarms(tmp_path / folder, AlarmsConfig(), 0)) as alarms:
            for i in held:
                known = {j for j in held if j <= i}
                alarms.evaluation(i, {j: own[j] for j in known}, {j: held[j] for j in known})
        return rung(tmp_path / folder)

    assert look("apart", held) == [("scores_apart", 30)]
    assert look("together", held | {30: base + 0.8}) == []


def test_a_resumed_run_comes_to_the_same_alarms(tmp_path):
    """The windows are filled again from what was logged: here at iteration 9, of 8 to 10."""
    config = AlarmsConfig(window=4)

    def slope(i):
        return 0.6 * (i >= 8)

    def metrics(i):
        return {"val/explained_variance": 0.1 - 0.02 * i, "objective/kl": 0.45 * i}

    expected = iterations(tmp_path / "whole", config, 24, metrics, slope)
    assert {name for name, _ in expected} == {"kl", "length_correlation", "explained_variance"}
    for start in (0, 3, 9, 10, 14):
        folder = tmp_path / f"from{start}"
        folder.mkdir()
        rows = [METRICS | metrics(i) | {"step": i} for i in range(start + 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        kept = [
            {"step": i, "score": score + 5, "reference_score": 5, "length": int(length)}
            for i in range(start)
            for score, length in zip(*answers(i, slope), strict=True)
        ]
        (folder / "completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        lines = (tmp_path / "whole/alarms.jsonl").read_text()
        (folder / "alarms.jsonl").write_text(lines)  # those that rang later are taken back
        iterations(folder, config, 24, metrics, slope, start)
        assert (folder / "alarms.jsonl").read_text() == lines


def test_alarms_can_be_switched_off(tmp_path):
    off = AlarmsConfig(
        kl=None, scores_apart=None, length_correlation=None, explained_variance=None, window=2
    )
    bad = {"objective/kl": 99.0, "val/explained_variance": -9.0}
    assert iterations(tmp_path / "run", off, 30, lambda i: bad, slope=lambda i: float(i)) == []
    ones = np.ones(5)
    with closing(Alarms(tmp_path, off, 0)) as alarms:
        alarms.evaluation(1, {0: ones, 1: 5 * ones}, {0: ones, 1: 0 * ones})
    assert rung(tmp_path) == []


def test_statistics_of_the_alarms():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 40))
    then, now = np.stack([x, y], axis=1), np.stack([x, x + 0.5 * y], axis=1)
    before, after, errors = correlation_rise(then, now)
    assert before == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert after == pytest.approx(np.corrcoef(x, x + 0.5 * y)[0, 1])
    assert errors == pytest.approx((np.arctanh(after) - np.arctanh(before)) / (2 / 37) ** 0.5)
    assert correlation_rise(np.ones((4, 2)), np.ones((4, 2))) == (0.0, 0.0, 0.0)
    gain, error = paired_gain(x, y)
    assert gain == pytest.approx((y - x).mean())
    assert error == pytest.approx((y - x).std(ddof=1) / 40**0.5)
