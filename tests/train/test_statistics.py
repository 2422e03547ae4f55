import numpy as np
import pytest

from glm_jax.train import statistics


def test_outcome_by_hand():
    found = statistics.outcome(np.array([1.0, 2.0, 3.0, 0.0]), np.array([0.0, 2.0, 1.0, 1.0]))
    assert (found["win"], found["tie"], found["lose"], found["n"]) == (0.5, 0.25, 0.25, 4)
    half = 1.959964 * (2.75 / 3) ** 0.5 / 2  # of +1, 0, +1, -1 around 0.25
    assert [found[k] for k in ("net", "low", "high")] == pytest.approx(
        [0.25, 0.25 - half, 0.25 + half]
    )


def test_outcome_changes_its_sign_when_the_sides_change():
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 3, (2, 50)).astype(float)
    one, other = statistics.outcome(ours, theirs), statistics.outcome(theirs, ours)
    assert (one["win"], one["tie"], one["lose"]) == (other["lose"], other["tie"], other["win"])
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))


def test_rounding_makes_no_winner():
    assert statistics.outcome(np.array([0.1 + 0.2]), np.array([0.3]))["tie"] == 1.0


def test_one_value_has_no_spread():
    assert statistics.mean_interval(np.array([2.0])) == (2.0, 0.0)


def test_accuracy_and_its_wilson_interval():
    found = statistics.accuracy(np.array([1.0] * 8 + [-1.0] * 2))
    assert (found["accuracy"], found["n"]) == (0.8, 10)
    assert found["ci95"] == pytest.approx([0.4901625, 0.9433178], abs=1e-5)
    # unlike the normal interval, never outside [0, 1], and never without width
    low, high = statistics.accuracy(np.ones(20))["ci95"]
    assert 0.83 < low < 0.84 and high == pytest.approx(1.0)


def test_equal_scores_count_one_half():
    assert statistics.accuracy(np.array([1.0, 0.0, 0.0, -1.0]))["accuracy"] == 0.5
    assert statistics.accuracy(np.zeros(3))["accuracy"] == 0.5


def test_correlation_of_differences_does_not_depend_on_which_side_came_first():
    rng = np.random.default_rng(0)
    x = rng.normal(size=100)
    y = 0.5 * x + rng.normal(size=100)
    flip = rng.choice([-1.0, 1.0], 100)
    expected = statistics.correlation(x, y)
    assert 0.2 < expected < 0.7
    assert statistics.correlation(flip * x, flip * y) == pytest.approx(expected)
    assert statistics.correlation(x, -3 * x) == pytest.approx(-1.0)


def test_correlation_by_hand_and_without_differences():
    # both orders of each pair make the mean zero: then it is Pearson's
    assert statistics.correlation(np.array([1.0, 2.0]), np.array([2.0, 1.0])) == pytest.approx(0.8)
    assert statistics.correlation(np.zeros(4), np.arange(4.0)) is None


@pytest.mark.parametrize("limit", [1, 17, 18, 35, 36, 128])
def test_histogram_counts_every_length(limit):
    found = statistics.histogram(np.arange(limit + 1), limit)
    assert sum(found["counts"]) == limit + 1
    assert len(found["edges"]) == len(found["counts"]) + 1 <= 19
    assert found["edges"][0] == 0 and found["edges"][-1] >= limit
