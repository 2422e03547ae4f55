"""How large pairs are and how much of them is length, before balancing and after it.

Dims: N pairs, ties left out.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from glm_jax.data.pair_sizes import PairSizes, table
from glm_jax.train.statistics import accuracy, correlation

GAPS = 8  # buckets of length difference over all groups, by quantiles


def described(sizes: PairSizes, kept: np.ndarray) -> dict[str, Any]:
    """Table 2 of arXiv 2404.00934 for these pairs; and how often longer is better among them, and
    among those that balancing keeps (rows `kept`), by group and by difference of length."""
    after = sizes.take(kept)
    return {
        "sizes": table(sizes),
        "bias": {"before": bias(sizes), "after": bias(after)},
        "gaps": gaps(sizes, after),
    }


def bias(sizes: PairSizes) -> dict[str, dict[str, Any]]:
    """Of "all" and of every group: how often longer is better, and how preference and length
    correlate: -1 to 1, and 0 where length says nothing, whichever response is put first."""
    if not len(sizes):
        return {}
    return {
        name: _bias(sizes.chosen_N[rows], sizes.rejected_N[rows])
        for name, rows in sizes.members().items()
    }


def gaps(before: PairSizes, after: PairSizes) -> list[dict[str, Any]]:
    """How often longer is better by |difference of length|, in the buckets of the pairs before."""
    difference_N = before.chosen_N - before.rejected_N
    left_N = after.chosen_N - after.rejected_N
    gap_N = np.abs(difference_N[difference_N != 0])
    if not len(gap_N):
        return []
    inner = np.quantile(gap_N, np.arange(1, GAPS) / GAPS, method="higher")
    edges = np.unique([gap_N.min(), *inner, gap_N.max() + 1]).astype(int).tolist()
    return [
        {"low": low, "high": high}
        | {
            when: _longer(part_N[(np.abs(part_N) >= low) & (np.abs(part_N) < high)])
            for when, part_N in (("before", difference_N), ("after", left_N))
        }
        for low, high in pairwise(edges)
    ]


def _bias(chosen_N: np.ndarray, rejected_N: np.ndarray) -> dict[str, Any]:
    difference_N = chosen_N - rejected_N
    one_N = np.ones(len(difference_N))
    ratio_N = np.log((chosen_N + 1) / (rejected_N + 1))
    return {
        **_longer(difference_N),
        "equal": int(np.sum(difference_N == 0)),
        "length_correlation": correlation(one_N, difference_N),
        "log_length_correlation": correlation(one_N, ratio_N),
    }


def _longer(difference_N: np.ndarray) -> dict[str, Any]:
    """Of the differences that are not 0."""
    unequal_N = difference_N[difference_N != 0]
    if not len(unequal_N):
        return {"share": None, "n": 0}
    found = accuracy(unequal_N)
    return {"share": found["accuracy"], "ci95": found["ci95"], "n": found["n"]}
