"""How far annotators agree: with each other, and with what they said before.

Agreement between people is on better, tie or worse of the response with the smaller id, so that
the sides on which responses stood do not enter. Gold pairs, whose answer is plain, and a senior's
decision of a pair without a majority are no evidence of agreement and stay out.
"""

import math
from itertools import combinations
from typing import Any

import numpy as np

from glm_jax.data.agreement import SHARED
from glm_jax.data.collection.figures.judged import FIRST, SECOND, TIE, Judged
from glm_jax.data.collection.figures.shares import Measured, measured

RESAMPLES = 200
VALUES = (SECOND, TIE, FIRST)


def alpha(judged: Judged) -> dict[str, Any]:
    """Krippendorff's alpha, ordinal (Krippendorff 2011), and its 95 % interval by resampling pairs.

    `pairs`: those that several people judged. None where all of them say the same of every pair,
    as chance would then agree no less.
    """
    counts_PxV = _counts(_independent(judged))
    counts_PxV = counts_PxV[counts_PxV.sum(axis=1) > 1]
    told = {"pairs": len(counts_PxV), "judgements": int(counts_PxV.sum())}
    if np.count_nonzero(counts_PxV.sum(axis=0)) < 2:
        return {"value": None, "ci95": None} | told
    # what lies behind is few kinds of pairs, each many times
    kinds, times = np.unique(counts_PxV, axis=0, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(counts_PxV), times / times.sum(), RESAMPLES)
    resampled = [alpha_of_counts(np.repeat(kinds, n, axis=0)) for n in drawn]
    known = [value for value in resampled if value is not None]
    return {
        "value": alpha_of_counts(counts_PxV),
        "ci95": np.quantile(known, (0.025, 0.975)).tolist(),
    } | told


def kappas(judged: Judged) -> list[dict[str, Any]]:
    """Cohen's kappa (1960) of every two annotators with SHARED pairs or more, the lowest first.

    None where both always said the same one thing.
    """
    from scipy.sparse import csr_array

    judged = _independent(judged)
    people = len(judged.names)
    said = csr_array(
        (np.ones(len(judged)), (judged.person_N * len(VALUES) + judged.verdict_N, judged.pair_N)),
        shape=(people * len(VALUES), judged.pair_N.max(initial=-1) + 1),
    )
    # how often one of two people said this and the other that, of everybody at once
    both_HxHxVxV = (said @ said.T).toarray().reshape(people, len(VALUES), people, len(VALUES))
    both_HxHxVxV = both_HxHxVxV.transpose(0, 2, 1, 3)
    found = []
    for one, other in combinations(range(people), 2):
        both_VxV = both_HxHxVxV[one, other]
        pairs = int(both_VxV.sum())
        if pairs >= SHARED:
            names = [judged.names[one], judged.names[other]]
            found.append({"annotators": names, "kappa": _kappa(both_VxV), "pairs": pairs})
    return sorted(found, key=lambda row: (row["kappa"] is None, row["kappa"]))


def _kappa(both_VxV: np.ndarray) -> float | None:
    """1 - disagreement / disagreement by chance; None where there can be none by chance."""
    n = both_VxV.sum()
    chance = n - both_VxV.sum(axis=0) @ both_VxV.sum(axis=1) / n
    return float(1 - (n - both_VxV.trace()) / chance) if chance else None


def repeats(judged: Judged) -> Measured:
    """How often a hidden repeat, its sides swapped, got the same verdict again.

    `same_side`: of all, those where the same side was preferred both times.
    """
    told = judged.take(judged.verdict_N <= FIRST)
    before = told.take(~told.repeat_N)
    keys = zip(before.person_N.tolist(), before.pair_N.tolist(), strict=True)
    known = dict(zip(keys, before.verdict_N.tolist(), strict=True))
    again = told.take(told.repeat_N)
    keys = zip(again.person_N.tolist(), again.pair_N.tolist(), strict=True)
    then_N = np.array([known.get(key, -1) for key in keys], np.int64)
    again, then_N = again.take(then_N >= 0), then_N[then_N >= 0]
    same_N = again.verdict_N == then_N
    sided_N = ~same_N & (again.verdict_N != TIE) & (then_N != TIE)
    found = measured(same_N, again)
    return found._replace(of_all=found.of_all | {"same_side": int(sided_N.sum())})


def _independent(judged: Judged) -> Judged:
    """What people said of the same pair without knowing of each other."""
    labels = judged.labels()
    return labels.take((labels.verdict_N <= FIRST) & ~labels.to_decide_N)


def _counts(judged: Judged) -> np.ndarray:
    """Int [P, V]: how many said which of the three of each pair."""
    pairs, place_N = np.unique(judged.pair_N, return_inverse=True)
    counts_PxV = np.zeros((len(pairs), len(VALUES)), np.int64)
    np.add.at(counts_PxV, (place_N, judged.verdict_N), 1)
    return counts_PxV


def alpha_of_counts(counts_PxV: np.ndarray) -> float | None:
    import krippendorff

    if np.count_nonzero(counts_PxV.sum(axis=0)) < 2:
        return None
    value = float(krippendorff.alpha(value_counts=counts_PxV, level_of_measurement="ordinal"))
    return value if math.isfinite(value) else None
