"""The trees that see length alone: what they find, what they must not, and on real pairs."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from glm_jax.data.balance import balance
from glm_jax.data.length_model import PairLengths, cross_validated, fit
from glm_jax.data.pair_table import Groups
from glm_jax.data.records import draw

REAL = Path(__file__).parents[3] / "shared/data/real_pairs_open_train.jsonl.gz"
RNG = np.random.default_rng(0)


def lengths(chosen, rejected, categories=None):
    return PairLengths(chosen, rejected, categories or [None] * len(chosen), [None] * len(chosen))


def right(pairs, prompts_N=None):
    prompts_N = np.arange(len(pairs.chosen_N)) if prompts_N is None else prompts_N
    return float(np.mean(cross_validated(pairs, prompts_N) > 0.5))


def test_longer_in_one_category_and_shorter_in_the_other_is_found():
    one, other = RNG.integers(1, 300, (2, 1200))
    names = ["prose", "code"] * 600
    longest = np.array([name == "prose" for name in names])
    low, high = np.minimum(one, other), np.maximum(one, other)
    pairs = lengths(np.where(longest, high, low), np.where(longest, low, high), names)
    assert right(pairs) > 0.95
    assert right(lengths(pairs.chosen_N, pairs.rejected_N)) < 0.6


def test_lengths_without_a_meaning_teach_nothing():
    one, other = RNG.integers(1, 300, (2, 2000))
    assert 0.46 < right(lengths(one, other)) < 0.54


def test_exchanging_the_responses_turns_the_guess_around():
    one, other = RNG.integers(1, 300, (2, 300))
    chosen, rejected = np.maximum(one, other), np.minimum(one, other)
    model = fit(lengths(chosen, rejected))
    ours = model.probabilities(lengths(one, other, ["unseen"] * 300))
    theirs = model.probabilities(lengths(other, one, ["unseen"] * 300))
    np.testing.assert_allclose(ours + theirs, 1)
    assert np.all(model.probabilities(lengths(one, one)) == 0.5)


def test_pairs_of_one_prompt_share_a_fold():
    """Each prompt has its own lengths and its own taste: only a leak could tell it."""
    prompts_N = np.repeat(np.arange(40), 30)
    short, long = np.repeat(np.arange(40) * 50, 30), np.repeat(np.arange(40) * 50 + 40, 30)
    taste = np.repeat(RNG.random(40) < 0.5, 30)
    pairs = lengths(np.where(taste, long, short), np.where(taste, short, long))
    assert right(pairs) > 0.9  # each pair as if it had a prompt of its own
    assert right(pairs, prompts_N) < 0.75


def test_without_anything_to_learn_from_the_guess_is_one_half():
    pairs = lengths(np.array([5, 6]), np.array([1, 2]))
    assert cross_validated(pairs, np.zeros(2, int)).tolist() == [0.5, 0.5]


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/data/real_pairs_open_train")
def test_on_real_pairs_balancing_leaves_nothing_for_trees_that_see_both_lengths():
    rows = [json.loads(line) for line in gzip.decompress(REAL.read_bytes()).splitlines()]
    chosen, rejected = (np.array([len(r[side]) for r in rows]) for side in ("chosen", "rejected"))
    sets, languages = [r["set"] for r in rows], [r["lang"] for r in rows]
    prompts_N = np.unique([json.dumps(r["prompt"]) for r in rows], return_inverse=True)[1]
    pairs = PairLengths(chosen, rejected, sets, languages)
    draws = np.array([draw(0, str(i)) for i in range(len(rows))], np.uint64)

    names, codes = np.unique([f"{r['set']}/{r['lang']}" for r in rows], return_inverse=True)
    groups = Groups(names.tolist(), codes.astype(np.int32))
    assert 0.58 < right(pairs, prompts_N) < 0.62
    kept = balance(chosen, rejected, draws, groups).kept
    assert right(pairs.take(kept), prompts_N[kept]) <= 0.52
    # by the difference alone, the level of the lengths still tells something
    flat = balance(chosen, rejected, draws, groups, levels=1).kept
    assert right(pairs.take(flat), prompts_N[flat]) > right(pairs.take(kept), prompts_N[kept])
