"""Figures against counts made by hand, and by other means."""

from fractions import Fraction
from itertools import product
from random import Random

import numpy as np
import pytest

from glm_jax.data.agreement import wilson
from glm_jax.data.collection.figures.reliability import alpha_of_counts
from glm_jax.data.collection.figures.statistics import statistics
from glm_jax.data.collection.labelling.places import recount
from tests.data.collection.labels.conftest import NOON

VERDICTS = ("second", "tie", "first")


def told(scene, now=NOON + 3000):
    return statistics(scene.db, now)


def share(k, n):
    return {"share": k / n, "ci95": pytest.approx(wilson(k, n)), "n": n}


def ordinal_alpha(units):
    """Krippendorff (2011), from the definition: disagreement within units over that of all pairs
    of values. `units`: lists of ranks; Fractions, so that nothing is rounded."""
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    n = {rank: values.count(rank) for rank in range(max(values) + 1)}

    def distance(a, b):
        low, high = min(a, b), max(a, b)
        between = sum(n[rank] for rank in range(low, high + 1))
        return (between - Fraction(n[low] + n[high], 2)) ** 2

    within = sum(
        Fraction(sum(distance(a, b) for a, b in product(unit, repeat=2)), len(unit) - 1)
        for unit in units
    )
    overall = Fraction(sum(distance(a, b) for a, b in product(values, repeat=2)), len(values) - 1)
    return float(1 - within / overall)


def test_alpha_of_the_worked_example():
    """Four observers, twelve units, five values: ordinal alpha is 0.815 (Krippendorff 2011)."""
    gap = None
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
        [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
    ]
    units = [[value - 1 for value in unit if value] for unit in zip(*observers, strict=True)]
    assert ordinal_alpha(units) == pytest.approx(0.815, abs=5e-4)
    counts = np.array([np.bincount(unit, minlength=5) for unit in units])
    assert alpha_of_counts(counts) == pytest.approx(ordinal_alpha(units), abs=1e-12)


def test_agreement_is_on_responses_not_on_sides(scene):
    """Three on forty pairs, one a senior, sides at random; gold, repeats, decisions stay out."""
    rng = Random(0)
    units, said = [], {name: [] for name in "uvw"}
    scene.person("w", "senior")
    scene.person("boss", "senior")
    for _ in range(40):
        pair = scene.pair()
        unit = [rng.choice((0, 1, 2, 2)) for _ in said]
        units.append(unit)
        for name, value in zip(said, unit, strict=True):
            said[name].append(value)
            scene.judge(name, pair, VERDICTS[value], swapped=rng.random() < 0.5)
        scene.judge("boss", pair, "first", to_decide=True)
        scene.judge("u", pair, "second", repeat=True)
    gold = scene.pair(purpose="gold", answer="first")
    for name in said:
        scene.judge(name, gold, "first")
    alone = scene.pair()
    scene.judge("u", alone, "second")

    found = told(scene)["agreement"]
    assert found["alpha"]["value"] == pytest.approx(ordinal_alpha(units), abs=1e-12)
    assert (found["alpha"]["pairs"], found["alpha"]["judgements"]) == (40, 120)
    low, high = found["alpha"]["ci95"]
    assert low < found["alpha"]["value"] < high and high - low < 0.7
    kappas = {tuple(row["annotators"]): row for row in found["kappas"]}
    assert set(kappas) == {("u", "v"), ("u", "w"), ("v", "w")}
    u, v = said["u"], said["v"]
    observed = sum(a == b for a, b in zip(u, v, strict=True)) / 40
    chance = sum(u.count(k) * v.count(k) for k in range(3)) / 1600
    assert kappas["u", "v"]["kappa"] == pytest.approx((observed - chance) / (1 - chance))
    assert kappas["u", "v"]["pairs"] == 40
    assert found["kappas"] == sorted(found["kappas"], key=lambda row: row["kappa"])


@pytest.mark.parametrize("shared", [19, 20])
def test_perfect_agreement_and_too_few_pairs_for_kappa(scene, shared):
    for i in range(shared):
        pair = scene.pair()
        for name in "uv":
            scene.judge(name, pair, VERDICTS[i % 3])
    found = told(scene)["agreement"]
    assert found["alpha"]["value"] == 1 and found["alpha"]["pairs"] == shared
    kappas = [{"annotators": ["u", "v"], "kappa": 1.0, "pairs": 20}]
    assert found["kappas"] == (kappas if shared == 20 else [])


def test_agreement_that_chance_explains_has_no_value(scene):
    for _ in range(20):
        pair = scene.pair()
        for name in "uv":
            scene.judge(name, pair, "tie")
    found = told(scene)["agreement"]
    assert found["alpha"] == {"value": None, "ci95": None, "pairs": 20, "judgements": 40}
    assert found["kappas"] == [{"annotators": ["u", "v"], "kappa": None, "pairs": 20}]


def test_who_always_takes_the_left_side_is_seen(scene):
    """One takes what stands left, the other what is first; a tie and a repeat have no part."""
    for i in range(30):
        pair, swapped = scene.pair(), i % 2 == 0
        scene.judge("lefty", pair, "second" if swapped else "first", swapped=swapped)
        scene.judge("fair", pair, "first", swapped=swapped)
    scene.judge("fair", scene.pair(), "tie")
    scene.judge("lefty", pair, "second", swapped=True, repeat=True)
    found = told(scene)
    rows = {row["name"]: row for row in found["annotators"]}
    assert rows["lefty"]["left"] == share(30, 30) and rows["fair"]["left"] == share(15, 30)
    assert found["left"] == share(45, 60)
    assert rows["lefty"]["left"]["ci95"][0] > 0.5 > rows["fair"]["left"]["ci95"][0]
    assert found["ties"] == share(1, 61) and rows["fair"]["ties"] == share(1, 31)


def test_repeats_tell_who_is_steady(scene):
    for i, (before, again) in enumerate(
        [("first", "first"), ("tie", "tie"), ("first", "second"), ("tie", "first"),
         ("cannot_judge", "first"), ("first", "unwilling")]
    ):  # fmt: skip
        pair = scene.pair()
        scene.judge("u", pair, before)
        scene.judge("u" if i else "v", pair, again, repeat=True, swapped=True)
    scene.judge("v", scene.pair(), "first")
    found = told(scene)
    # of six, one has no judgement of the same person before, and two say nothing
    assert found["repeats"] == share(1, 3) | {"same_side": 1}
    rows = {row["name"]: row["repeats"] for row in found["annotators"]}
    assert rows == {"u": share(1, 3), "v": {"share": None, "ci95": None, "n": 0}}


def test_length_bias_by_person_and_by_difference(scene):
    """u likes length where the difference is large, v never does."""
    for gap in range(1, 13):
        for texts in (("x", "x" * (1 + gap)), ("x" * (1 + gap), "x")):
            longer, shorter = ("second", "first") if texts[0] == "x" else ("first", "second")
            pair = scene.pair(texts=texts)
            scene.judge("u", pair, longer if gap > 6 else shorter)
            scene.judge("v", pair, shorter)
    scene.judge("v", scene.pair(texts=("y", "z")), "first")  # of equal length
    found = told(scene)
    rows = {row["name"]: row["longer"] for row in found["annotators"]}
    assert rows == {"u": share(12, 24), "v": share(0, 24)}
    assert found["longer"] == share(12, 48)
    buckets = found["buckets"]
    assert [(b["low"], b["high"]) for b in buckets] == [(i, i + 1) for i in range(1, 12, 2)]
    assert [b["share"] for b in buckets] == [0, 0, 0, 0.5, 0.5, 0.5]
    assert sum(b["n"] for b in buckets) == 48


def test_gold_is_counted_and_kept_apart(scene):
    answers = {"first": "first", "tie": "tie", "second": "first"}
    for answer, verdict in [*answers.items(), ("first", "unwilling")]:
        scene.judge("u", scene.pair(purpose="gold", answer=answer), verdict)
    scene.judge("u", scene.pair(purpose="practice", answer="first"), "second")
    found = told(scene)
    assert found["gold"] == share(2, 3)
    assert found["ties"]["n"] == 0 and found["verdicts"]["first"] == 0
    assert found["throughput"]["all"] == 4, "practice is no work"


def test_a_circle_of_three_is_found_by_majority(scene):
    """a > b > c > a, the last by two of three; another prompt is in order; two pairs cannot be."""
    circle = [scene.pair(*two, prompt="round") for two in ("ab", "bc", "ac")]
    for name, *verdicts in [("u", "first", "first", "second"), ("v", "first", "first", "first")]:
        for pair, verdict in zip(circle, verdicts, strict=True):
            scene.judge(name, pair, verdict)
    scene.judge("w", circle[2], "second")
    for two in ("ab", "bc", "ac"):
        scene.judge("u", scene.pair(*two, prompt="straight"), "first")
    for two in ("ab", "bc"):
        scene.judge("u", scene.pair(*two, prompt="short"), "first")
    found = told(scene)["cycles"]
    assert found == share(1, 2) | {
        "pairs": 3, "examples": ["round"], "categories": {"talk": share(1, 2)},
    }  # fmt: skip
    scene.judge("x", circle[2], "first")  # two against two: a tie, and the circle is open
    assert told(scene)["cycles"]["share"] == 0
    circle[2].decision = scene.judge("boss", circle[2], "second", to_decide=True).id
    scene.judge("y", circle[2], "first")  # whatever others say
    assert told(scene)["cycles"]["share"] == 1 / 2


def test_what_does_not_count_is_nowhere(scene):
    pair = scene.pair()
    undone = scene.judge("u", pair, "first")
    scene.retract("u", "undone", undone)
    scene.judge("v", pair, "second")
    scene.retract("v", "invalidated")
    scene.judge("w", pair, "tie")
    scene.retract("w", "invalidated")
    scene.retract("w", "restored")
    found = told(scene)
    assert found["throughput"]["all"] == 1 and found["verdicts"]["tie"] == 1
    assert {row["name"]: row["judged"] for row in found["annotators"]} == {"u": 0, "v": 0, "w": 1}


def test_progress_days_and_time(scene):
    pair, other = scene.pair(wanted=2), scene.pair(wanted=2)
    scene.pair(), scene.pair(missing=0, queue=None), scene.pair(purpose="gold", answer="tie")
    scene.judge("u", pair, "first", created=NOON - 86400, milliseconds=10_000)
    scene.judge("u", other, "cannot_judge", created=NOON - 7200, milliseconds=20_000)
    scene.judge("v", other, "tie", created=NOON, milliseconds=60_000)
    recount(scene.db, [pair.id, other.id])  # one more for the first, a senior for the second
    found = told(scene, NOON + 60)
    assert found["progress"] == {
        "pairs": 4,
        "done": 1,
        "missing": 3,
        "senior": 1,
        "stuck": 1,
        "open": 0,
    }
    scene.person("boss", "senior")
    assert told(scene, NOON + 60)["progress"]["stuck"] == 0
    throughput = found["throughput"]
    assert (throughput["last_hour"], throughput["last_day"], throughput["all"]) == (1, 2, 3)
    assert [day["judgements"] for day in throughput["days"]] == [1, 2]
    seconds = found["seconds"]
    assert seconds["quartiles"] == [15, 20, 40] and seconds["hours"] == pytest.approx(0.025)
    assert sum(seconds["histogram"]["counts"]) == 2, "the slowest of three is one in a hundred"
    assert found["unable"] == share(1, 3)


def test_nothing_yet(scene):
    scene.person("new")
    scene.person("boss", "administrator")
    found = told(scene)
    assert found["agreement"]["alpha"]["value"] is None and found["left"]["share"] is None
    assert [row["name"] for row in found["annotators"]] == ["new"]
    assert found["cycles"]["share"] is None and found["seconds"]["quartiles"] is None
