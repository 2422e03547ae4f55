import numpy as np
import pytest

from glm_jax.data.balance import POOLED, balance
from glm_jax.data.length_rule import length_only_accuracy, length_only_rule, longer_is_better
from glm_jax.data.pair_table import Groups
from glm_jax.data.records import draw
from glm_jax.errors import InputError

N = 1000
RNG = np.random.default_rng(0)
REJECTED = RNG.integers(1, 300, N)
CHOSEN = np.maximum(1, REJECTED + RNG.normal(25, 60, N).astype(int))
CHOSEN[:40] = REJECTED[:40]
IDS = [f"pair {i}" for i in range(N)]
GROUPS = [str(group) for group in RNG.choice(["qa", "json", "play"], N, p=[0.6, 0.38, 0.02])]
GROUPS[:2] = ["rare", "rare"]


def draws(ids, seed=0):
    return np.array([draw(seed, one) for one in ids], np.uint64)


def coded(groups):
    names = list(dict.fromkeys(groups))
    return Groups(names, np.array([names.index(group) for group in groups], np.int32))


def balanced(order=slice(None), seed=0, **options):
    ids, groups = np.array(IDS)[order].tolist(), np.array(GROUPS)[order].tolist()
    return balance(CHOSEN[order], REJECTED[order], draws(ids, seed), coded(groups), **options)


def pooled_groups(result):
    return [POOLED if group in result.pooled else group for group in GROUPS]


@pytest.mark.parametrize("buckets, levels", [(1, 1), (8, 1), (50, 1), (8, 2), (8, 3)])
def test_every_bucket_of_every_group_is_even(buckets, levels):
    result = balanced(buckets=buckets, levels=levels)
    names = np.array(pooled_groups(result))[result.kept]
    difference = (CHOSEN - REJECTED)[result.kept]
    assert {row["group"] for row in result.rows} == {"qa", "json", POOLED}
    for row in result.rows:
        inside = (names == row["group"]) & (row["low"] <= abs(difference))
        inside &= abs(difference) < row["high"]
        assert inside.sum() == row["kept"]
        assert (difference[inside] > 0).sum() == (difference[inside] < 0).sum()
        most = 2 * min(row["longer_better"], row["shorter_better"])
        if not row["equal"]:
            assert row["kept"] == most if levels == 1 else row["kept"] <= most
    most = len(balanced(buckets=buckets, levels=1).kept)
    assert 0.85 * most < len(result.kept) <= most


def test_short_and_long_pairs_of_a_bucket_are_even_apart():
    """One bucket; longer is better among short responses and worse among long ones."""
    short = np.concatenate([np.full(30, 20), np.full(10, 10)]), 30
    long = np.concatenate([np.full(10, 210), np.full(30, 200)]), 410
    chosen = np.concatenate([short[0], long[0]])
    rejected = np.concatenate([short[1] - short[0], long[1] - long[0]])
    args = chosen, rejected, draws(map(str, range(80))), coded("g" * 80)
    assert len(balance(*args, buckets=1, levels=1).kept) == 80  # 40 and 40: even as it is
    kept = balance(*args, buckets=1).kept
    for inside in (kept < 40, kept >= 40):
        rows = kept[inside]
        assert len(rows) == 20 and (chosen[rows] > rejected[rows]).sum() == 10


def test_rows_count_every_pair_once_and_leave_no_gap():
    result = balanced()
    assert sum(r["equal"] + r["longer_better"] + r["shorter_better"] for r in result.rows) == N
    assert sum(r["kept"] for r in result.rows) == len(result.kept)
    qa = [row for row in result.rows if row["group"] == "qa" and not row["equal"]]
    assert len(qa) == 8
    assert [row["high"] for row in qa[:-1]] == [row["low"] for row in qa[1:]]
    sizes = [row["longer_better"] + row["shorter_better"] for row in qa]
    assert max(sizes) < 1.3 * min(sizes)


def test_an_edge_belongs_to_the_bucket_above_it():
    """Gaps 1 1 2 2 in two buckets: [1, 2) and [2, 3)."""
    chosen, rejected = np.array([2, 1, 3, 1]), np.array([1, 2, 1, 3])
    result = balance(chosen, rejected, draws("abcd"), coded("gggg"), buckets=2, levels=1)
    assert [(row["low"], row["high"], row["kept"]) for row in result.rows] == [(1, 2, 2), (2, 3, 2)]


def test_equal_lengths_stay():
    assert set(range(40)) <= set(balanced().kept.tolist())


def test_small_groups_are_pooled_and_said_so():
    result = balanced()
    assert result.pooled == {"play": GROUPS.count("play"), "rare": 2}
    assert not balanced(order=[i for i in range(N) if GROUPS[i] in ("qa", "json")]).pooled


def test_the_order_of_the_pairs_does_not_matter_and_the_seed_does():
    kept = {IDS[i] for i in balanced().kept}
    shuffle = np.random.default_rng(1).permutation(N)
    assert {IDS[shuffle[i]] for i in balanced(order=shuffle).kept} == kept
    other = {IDS[i] for i in balanced(seed=1).kept}
    assert other != kept
    assert len(other) == len(kept)


def test_the_length_only_rule_scores_one_half_after_balancing():
    result = balanced()
    groups = pooled_groups(result)
    rule = length_only_rule(CHOSEN, REJECTED, groups)
    before = length_only_accuracy(rule, CHOSEN, REJECTED, groups)
    assert longer_is_better(CHOSEN, REJECTED) > 0.6 and before["qa"] > 0.6
    kept = result.kept
    after = length_only_accuracy(rule, CHOSEN[kept], REJECTED[kept], [groups[i] for i in kept])
    assert after == {"all": 0.5, "qa": 0.5, "json": 0.5, POOLED: 0.5}


def test_the_rule_is_fitted_by_group_and_ties_count_one_half():
    chosen, rejected = np.array([5, 6, 1, 1, 4]), np.array([1, 1, 2, 2, 4])
    rule = length_only_rule(chosen, rejected, ["a", "a", "b", "b", "b"])
    assert rule == {"all": "longer", "a": "longer", "b": "shorter"}
    accuracy = length_only_accuracy(rule, chosen, rejected, ["a", "b", "b", "b", "new"])
    assert accuracy == {"all": 3.5 / 5, "a": 1, "b": 2 / 3, "new": 0.5}


def test_nothing_and_duplicates():
    empty = np.array([], int)
    assert len(balance(empty, empty, draws([]), coded([])).kept) == 0
    assert np.isnan(longer_is_better(empty, empty))  # and no warning
    one_sided = balance(np.arange(9) + 2, np.ones(9, int), draws("abcdefghi"), coded("g" * 9))
    assert len(one_sided.kept) == 0
    with pytest.raises(InputError, match="the pairs number 1 and 3 have the same"):
        balance(np.ones(3), np.ones(3), draws("aba"), coded("ggg"))


def test_edges_are_closed_on_the_left():
    """Gaps 1 9 10 49 50 90, first of the longer better, then of the shorter."""
    gaps = np.array([1, 9, 10, 49, 50, 90])
    chosen = np.concatenate([gaps + 100, np.full(6, 100)])
    rejected = np.concatenate([np.full(6, 100), gaps + 100])
    args = chosen, rejected, draws("abcdefghijkl"), coded("g" * 12)
    for edges, bounds in {(0, 10, 50): [(1, 10), (10, 50), (50, 91)],
                          (0, 1, 10, 50): [(1, 10), (10, 50), (50, 91)],
                          (10, 50): [(1, 10), (10, 50), (50, 91)]}.items():  # fmt: skip
        rows = balance(*args, edges=edges).rows
        assert [(row["low"], row["high"]) for row in rows] == bounds
        assert [row["longer_better"] for row in rows] == [2, 2, 2]
    for wrong in ([], [5, 5], [-1, 3]):
        with pytest.raises(InputError, match="edges"):
            balance(*args, edges=wrong)


def test_weights_make_both_sides_of_a_bucket_equal_and_keep_the_total():
    given = np.where(RNG.random(N) < 0.5, np.nan, RNG.random(N)).astype(np.float32)
    for weights in (None, given):
        result = balanced(mode="weight", weights=weights, levels=1)
        before = np.ones(N) if weights is None else np.nan_to_num(weights.astype(float), nan=1.0)
        found = np.zeros(N)
        found[result.kept] = result.weights
        names, difference = np.array(pooled_groups(result)), CHOSEN - REJECTED
        for row in result.rows:
            inside = (names == row["group"]) & (row["low"] <= abs(difference))
            inside &= abs(difference) < row["high"]
            assert found[inside].sum() == pytest.approx(before[inside].sum() if row["kept"] else 0)
            longer, shorter = inside & (difference > 0), inside & (difference < 0)
            assert found[longer].sum() == pytest.approx(found[shorter].sum(), rel=1e-12)
            assert row["kept"] in (inside.sum(), 0)
            assert (row["kept"] == 0) == (not longer.any() or not shorter.any()) or row["equal"]
