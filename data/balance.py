"""Bucket-based length balancing of preference pairs, and the rule that looks at length alone.

Stated in arXiv 2404.00934, section 2: pairs go into buckets by the difference of their responses'
lengths, and within every bucket "the better one is longer" is made as frequent as "the better one
is shorter". Ours: lengths are tokens, buckets are quantiles of the absolute difference, and the
surplus is dropped.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from glm_jax.data.records import draw
from glm_jax.errors import InputError

SMALL_GROUP = 50  # below this many pairs, groups share their buckets
POOLED = "(pooled)"


class Balanced(NamedTuple):
    kept: np.ndarray  # sorted indices of the pairs that stay
    rows: list[dict[str, Any]]  # a bucket each: group, low <= difference < high, counts
    pooled: dict[str, int]  # small groups that were treated as one, "(pooled)", and their pairs


def balance(
    chosen_lengths: np.ndarray,
    rejected_lengths: np.ndarray,
    ids: Sequence[str],
    groups: Sequence[str],
    *,
    seed: int,
    buckets: int = 8,
) -> Balanced:
    """Choose the pairs that stay.

    Pairs of equal lengths stay. Of the others, each bucket of each group keeps as many with the
    longer response preferred as with the shorter one. Which of the larger side stay is drawn by
    (seed, id), so neither the order of the pairs nor who else works on them matters. Groups of
    fewer than 50 pairs are pooled. Ids must be unique.
    """
    for pair_id, times in Counter(ids).most_common(1):
        if times > 1:
            raise InputError(f"pair ids must be unique, but {times} pairs have the id {pair_id!r}")
    difference = np.asarray(chosen_lengths, int) - np.asarray(rejected_lengths, int)
    names = np.array(groups, dtype=object)
    sizes = {str(group): int(np.sum(names == group)) for group in sorted(set(groups))}
    pooled = {group: size for group, size in sizes.items() if size < SMALL_GROUP}
    names[[group in pooled for group in groups]] = POOLED
    lottery = np.array([draw(seed, pair_id) for pair_id in ids], np.uint64)

    kept = []
    rows: list[dict[str, Any]] = []
    for group in sorted(set(names)):
        members = np.flatnonzero(names == group)
        equal = members[difference[members] == 0]
        kept.append(equal)
        if len(equal):
            rows.append(_row(group, 0, 1, equal, equal[:0], equal[:0], len(equal)))
        unequal = members[difference[members] != 0]
        gap = np.abs(difference[unequal])
        edges = _edges(gap, buckets)
        for low, high in pairwise(edges):
            inside = unequal[(gap >= low) & (gap < high)]
            longer, shorter = inside[difference[inside] > 0], inside[difference[inside] < 0]
            quota = min(len(longer), len(shorter))
            for side in (longer, shorter):
                kept.append(side[np.argsort(lottery[side])[:quota]])
            rows.append(_row(group, low, high, inside[:0], longer, shorter, 2 * quota))
    indices = np.sort(np.concatenate(kept)) if kept else np.array([], int)
    return Balanced(indices, rows, pooled)


def longer_is_better(chosen_lengths: np.ndarray, rejected_lengths: np.ndarray) -> float:
    """The share of pairs whose better response is the longer one; equal lengths count one half."""
    return float(np.mean(_agreement(chosen_lengths, rejected_lengths)))


def length_only_rule(
    chosen_lengths: np.ndarray, rejected_lengths: np.ndarray, groups: Sequence[str]
) -> dict[str, str]:
    """The better of "longer" and "shorter" for each group of training pairs, and for "all"."""
    agreement = _agreement(chosen_lengths, rejected_lengths)
    return {
        group: "longer" if mean >= 0.5 else "shorter"
        for group, mean in _means(agreement, groups).items()
    }


def length_only_accuracy(
    rule: Mapping[str, str],
    chosen_lengths: np.ndarray,
    rejected_lengths: np.ndarray,
    groups: Sequence[str],
) -> dict[str, float]:
    """What the rule gets right of other pairs, by group and for "all".

    A pair of equal lengths counts one half. A group that the rule was not fitted on is judged by
    the rule for "all".
    """
    agreement = _agreement(chosen_lengths, rejected_lengths)
    longer = np.array([rule.get(group, rule["all"]) == "longer" for group in groups], bool)
    return _means(np.where(longer, agreement, 1 - agreement), groups)


def _edges(gap: np.ndarray, buckets: int) -> list[int]:
    """Bucket b is edges[b] <= gap < edges[b + 1]; repeated quantiles make fewer buckets."""
    if len(gap) == 0:
        return []
    inner = np.quantile(gap, np.arange(1, buckets) / buckets, method="higher")
    return [int(edge) for edge in np.unique([gap.min(), *inner, gap.max() + 1])]


def _row(group, low, high, equal, longer, shorter, kept) -> dict[str, Any]:
    return {
        "group": str(group),
        "low": low,
        "high": high,
        "equal": len(equal),
        "longer_better": len(longer),
        "shorter_better": len(shorter),
        "kept": kept,
    }


def _agreement(chosen_lengths: np.ndarray, rejected_lengths: np.ndarray) -> np.ndarray:
    """1 where the chosen response is longer, 0 where it is shorter, 0.5 where they are equal."""
    sign = np.sign(np.asarray(chosen_lengths, int) - np.asarray(rejected_lengths, int))
    return (sign + 1) / 2


def _means(values: np.ndarray, groups: Sequence[str]) -> dict[str, float]:
    names = np.array(groups, dtype=object)
    means = {str(group): float(values[names == group].mean()) for group in sorted(set(groups))}
    return {"all": float(values.mean()), **means}
