"""Bucket-based length balancing of preference pairs.

Stated in arXiv 2404.00934, section 2: pairs go into buckets by the difference of their responses'
lengths, and within every bucket "the better one is longer" is made as frequent as "the better one
is shorter". Ours: lengths are tokens (or characters), buckets are quantiles of the absolute
difference (or given edges), the surplus is dropped, or weighs less, and a bucket's longer and
shorter pairs are balanced apart: where longer is better among short responses and worse among
long ones, a model that sees both lengths would still find it.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from glm_jax.data.pair_table import Groups
from glm_jax.data.records import Pair, to_dict
from glm_jax.errors import InputError

Mode: TypeAlias = Literal["drop", "weight"]

SMALL_GROUP = 50  # below this many pairs, groups share their buckets
POOLED = "(pooled)"
LEVELS = 2


class Balanced(NamedTuple):
    kept: np.ndarray  # sorted indices of the pairs that stay
    rows: list[dict[str, Any]]  # a bucket each: group, low <= difference < high, counts
    pooled: dict[str, int]  # small groups that were treated as one, "(pooled)", and their pairs
    weights: np.ndarray | None = None  # float64 of each pair that stays, if they were asked for


def balance(
    chosen_lengths: np.ndarray,
    rejected_lengths: np.ndarray,
    draws: np.ndarray,
    groups: Groups,
    *,
    buckets: int = 8,
    edges: Sequence[int] | None = None,
    levels: int = LEVELS,
    mode: Mode = "drop",
    weights: np.ndarray | None = None,
) -> Balanced:
    """Choose the pairs that stay, or the weights that they get.

    Pairs of equal lengths stay as they are. Of the others, each bucket of each group keeps as
    many with the longer response preferred as with the shorter one: those with the lowest `draws`
    (uint64 [N], `records.draw(seed, id)`), so neither the order of the pairs nor who else works
    on them matters. Groups of fewer than 50 pairs are pooled.

    A bucket's pairs are made even in `levels` parts, by quantiles of both lengths together.

    `buckets` quantiles of the non-zero differences; or `edges`, each of which begins a bucket
    (what lies below the first is one too). `mode` "weight": all pairs stay, and both sides of a
    part get one half of its weight (of `weights` [N], by default 1 each); where a side is
    missing there is nothing to weigh against, and that part is dropped as in "drop".
    Raises InputError if two draws are equal: then two pairs have the same id.
    """
    check_buckets(buckets, edges, levels)
    _check_unique(draws)
    difference = chosen_lengths.astype(np.int64) - rejected_lengths
    sizes = chosen_lengths.astype(np.int64) + rejected_lengths
    share = (
        np.ones(len(draws)) if weights is None else np.nan_to_num(weights.astype(float), nan=1.0)
    )
    names, codes, pooled = _pooled(groups)

    stays = np.zeros(len(draws), bool)
    rows: list[dict[str, Any]] = []
    for name, members in _members(names, codes):
        equal = members[difference[members] == 0]
        stays[equal] = True
        if len(equal):
            rows.append(_row(name, 0, 1, len(equal), 0, 0, len(equal)))
        members = members[difference[members] != 0]
        gap = np.abs(difference[members])
        bounds = _quantiles(gap, buckets) if edges is None else _given(gap, edges)
        bucket = np.searchsorted(bounds, gap, side="right") - 1
        for at, (low, high) in enumerate(pairwise(bounds)):
            inside = members[bucket == at]
            kept = 0
            for cell in _levels(inside, sizes, levels):
                sides = cell[difference[cell] > 0], cell[difference[cell] < 0]
                kept += _evened(sides, draws, share, stays, mode)
            longer = int(np.sum(difference[inside] > 0))
            rows.append(_row(name, low, high, 0, longer, len(inside) - longer, kept))
    kept = np.flatnonzero(stays)
    return Balanced(kept, rows, pooled, share[kept] if mode == "weight" else None)


def _levels(members: np.ndarray, sizes: np.ndarray, levels: int) -> list[np.ndarray]:
    """The members in so many parts, from those of the smallest size to those of the largest."""
    if len(members) == 0:
        return []
    size = sizes[members]
    inner = np.quantile(size, np.arange(1, levels) / levels, method="higher")
    level = np.searchsorted(np.unique(inner), size, side="right")
    return [members[level == at] for at in range(levels)]


def _evened(
    sides: tuple[np.ndarray, np.ndarray], draws: np.ndarray, share: np.ndarray,
    stays: np.ndarray, mode: Mode,
) -> int:  # fmt: skip
    """Marks in `stays` those of two sides that stay, as many (or of as much `share`) of each."""
    if mode == "drop":
        quota = min(map(len, sides))
        for side in sides:
            stays[side[np.argsort(draws[side])[:quota]]] = True
        return 2 * quota
    totals = [share[side].sum() for side in sides]
    if min(totals) == 0:
        return 0
    for side, total in zip(sides, totals, strict=True):
        share[side] *= sum(totals) / (2 * total)
        stays[side] = True
    return sum(map(len, sides))


def check_buckets(buckets: int, edges: Sequence[int] | None, levels: int = LEVELS) -> None:
    """Raises InputError for settings that make no buckets."""
    for name, number in (("buckets", buckets), ("levels", levels)):
        if number < 1:
            raise InputError(f"{name} must be at least 1, got {number}")
    if edges is not None and (
        not edges or min(edges) < 0 or any(a >= b for a, b in pairwise(edges))
    ):
        raise InputError(f"edges are lengths from 0 on, each above the one before, got {edges}")


def weighed_row(weights: np.ndarray, row: int, pair: Pair) -> dict[str, Any]:
    """What is written of a pair with its weight."""
    return to_dict(pair) | {"weight": float(weights[row])}


def same_draws(draws: np.ndarray) -> tuple[int, int] | None:
    """Two rows of the same draw, and so of the same id; None if there are none."""
    ordered = np.sort(draws)
    again = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(again):
        return None
    first, second, *_ = np.flatnonzero(draws == ordered[again[0]]).tolist()
    return first, second


def _check_unique(draws: np.ndarray) -> None:
    if again := same_draws(draws):
        first, second = again
        raise InputError(
            f"pair ids must be unique, but the pairs number {first + 1} and {second + 1} have the "
            "same"
        )


def _pooled(groups: Groups) -> tuple[list[str], np.ndarray, dict[str, int]]:
    """The groups with the small ones as one, the last, and what these are."""
    sizes = np.bincount(groups.codes, minlength=len(groups.names)).tolist()
    pooled = {
        n: size for n, size in sorted(zip(groups.names, sizes, strict=True)) if size < SMALL_GROUP
    }
    large = [name for name in groups.names if name not in pooled]
    place = {name: i for i, name in enumerate(large)}
    moved = np.array([place.get(name, len(large)) for name in groups.names], np.int32)
    return [*large, POOLED], moved[groups.codes], pooled


def _members(names: list[str], codes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Every group that has any, by name, with its members in order."""
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    for code in sorted(range(len(names)), key=names.__getitem__):
        members = order[ends[code - 1] if code else 0 : ends[code]]
        if len(members):
            yield names[code], members


def _quantiles(gap: np.ndarray, buckets: int) -> list[int]:
    """Bucket b is edges[b] <= gap < edges[b + 1]; repeated quantiles make fewer buckets."""
    if len(gap) == 0:
        return []
    inner = np.quantile(gap, np.arange(1, buckets) / buckets, method="higher")
    return [int(edge) for edge in np.unique([gap.min(), *inner, gap.max() + 1])]


def _given(gap: np.ndarray, edges: Sequence[int]) -> list[int]:
    """The edges with an end behind the last, and a bucket below the first where any gap is."""
    if len(gap) == 0:
        return []
    end = max(int(gap.max()), edges[-1]) + 1
    below = [1] if gap.min() < edges[0] else []
    above = sorted({max(edge, 1) for edge in edges})  # equal lengths are in no bucket
    return [*below, *above, end]


def _row(
    group: str, low: int, high: int, equal: int, longer: int, shorter: int, kept: int
) -> dict[str, Any]:
    return {
        "group": group,
        "low": low,
        "high": high,
        "equal": equal,
        "longer_better": longer,
        "shorter_better": shorter,
        "kept": kept,
    }
