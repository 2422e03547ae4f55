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
    value = alpha_of_counts(counts_PxV)
    if value is None:
        return {"value": None, "ci95": None} | told
    # what lies behind is few kinds of pairs, each many times
    kinds, times = np.unique(counts_PxV, axis=0, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(counts_PxV), times / times.sum(), RESAMPLES)
    resampled = [alpha_of_counts(np.repeat(kinds, n, axis=0)) for n in drawn]
    known = [value for value in resampled if value is not None]
    return {"value": value, "ci95": np.quantile(known, (0.025, 0.975)).tolist()} | told


def kappas(judged: Judged) -> list[dict[str, Any]]:
    """Cohen's kappa (1960) of every two annotators with SHARED pairs or more, the lowest first.

    None where both always said the same one thing.
    """
    from sklearn.metrics import cohen_kappa_score

    judged = _independent(judged)
    said: list[dict[int, int]] = [{} for _ in judged.names]
    for person, pair, verdict in zip(
        judged.person_N.tolist(), judged.pair_N.tolist(), judged.verdict_N.tolist(), strict=True
    ):
        said[person][pair] = verdict
    found = []
    for one, other in combinations(range(len(judged.names)), 2):
        pairs = sorted(said[one].keys() & said[other].keys())
        if len(pairs) < SHARED:
            continue
        a, b = [said[one][pair] for pair in pairs], [said[other][pair] for pair in pairs]
        constant = len({*a, *b}) == 1
        value = None if constant else float(cohen_kappa_score(a, b, labels=VALUES))
        names = [judged.names[one], judged.names[other]]
        found.append({"annotators": names, "kappa": value, "pairs": len(pairs)})
    return sorted(found, key=lambda row: (row["kappa"] is None, row["kappa"]))


def repeats(judged: Judged) -> Measured:
    """How often a hidden repeat, its sides swapped, got the same verdict again.

    `same_side`: of all, those where the same side was preferred both times.
    """
    votes = judged.votes()
    before = votes.take(~votes.repeat_N)
    keys = zip(before.person_N.tolist(), before.pair_N.tolist(), strict=True)
    known = dict(zip(keys, before.verdict_N.tolist(), strict=True))
    again = votes.take(votes.repeat_N)
    keys = zip(again.person_N.tolist(), again.pair_N.tolist(), strict=True)
    then_N = np.array([known.get(key, -1) for key in keys], np.int64)
    again, then_N = again.take(then_N >= 0), then_N[then_N >= 0]
    same_N = again.verdict_N == then_N
    sided_N = ~same_N & (again.verdict_N != TIE) & (then_N != TIE)
    found = measured(same_N, again)
    return found._replace(of_all=found.of_all | {"same_side": int(sided_N.sum())})


def _independent(judged: Judged) -> Judged:
    """What people said of the same pair without knowing of each other."""
    votes = judged.labels().votes()
    return votes.take(~votes.to_decide_N)


def _counts(judged: Judged) -> np.ndarray:
    """Int [P, V]: how many said which of the three of each pair."""
    pairs, place_N = np.unique(judged.pair_N, return_inverse=True)
    counts_PxV = np.zeros((len(pairs), len(VALUES)), np.int64)
    np.add.at(counts_PxV, (place_N, judged.verdict_N), 1)
    return counts_PxV


def alpha_of_counts(counts_PxV: np.ndarray) -> float | None:
    """Ordinal alpha of int [P, V]; None where all say the same one thing."""
    import krippendorff

    if np.count_nonzero(counts_PxV.sum(axis=0)) < 2:
        return None
    value = float(krippendorff.alpha(value_counts=counts_PxV, level_of_measurement="ordinal"))
    return value if math.isfinite(value) else None
