"""What moves annotators besides the answers: the side where one stands, and its length."""

from itertools import pairwise
from typing import Any

import numpy as np

from glm_jax.data.collection.figures.judged import FIRST, Judged
from glm_jax.data.collection.figures.shares import Measured, measured, share

BUCKETS = 6  # of length differences, with about as many judgements in each


def left(judged: Judged) -> Measured:
    """How often the response on the left is preferred.

    Sides are drawn for each judgement, so that 50 % is what nobody with a habit differs from.
    """
    found = judged.labels().preferences()
    left_N = (found.verdict_N == FIRST) != found.swapped_N
    return measured(left_N, found)


def longer(judged: Judged) -> tuple[Measured, list[dict[str, Any]]]:
    """How often the longer response is preferred, and that by difference of length.

    Lengths are in characters; responses of equal length are left out. A bucket holds the
    differences from `low` to `high`.
    """
    found = judged.labels().preferences()
    found = found.take(found.longer_N != 0)
    longer_N = (found.verdict_N == FIRST) == (found.longer_N > 0)
    gap_N = np.abs(found.longer_N)
    buckets = [
        {"low": low, "high": high - 1} | share(longer_N[(gap_N >= low) & (gap_N < high)])
        for low, high in pairwise(_edges(gap_N))
    ]
    return measured(longer_N, found), buckets


def _edges(gap_N: np.ndarray) -> list[int]:
    if not len(gap_N):
        return []
    inner = np.quantile(gap_N, np.arange(1, BUCKETS) / BUCKETS, method="higher")
    return np.unique([gap_N.min(), *inner, gap_N.max() + 1]).astype(int).tolist()
