"""Which pairs make up a batch and which row of it each lies in, planned from lengths alone.

Every batch has the same number of rows and one of a few widths, each of which is compiled once.
For little of that to be pads, all batches must be about as long: each takes one pair from every
stratum of lengths, as many strata as it has pairs, so that it is a fair sample of them, too.
Sorting pairs of like length together would do neither: such batches differ in length, and with
length being what a reward model is misled by, in what they teach.

Dims: N pairs, B pairs of a batch, R rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from glm_jax.errors import InputError

PADDING = 0.04  # so much is given up for narrow rows, in which attention costs less
SAMPLED = 32  # batches that the number of rows is chosen by
TRIED = 8  # numbers of rows

Rows = list[list[int]]  # the pairs in each row


class Plan(NamedTuple):
    """All batches of a run."""

    rows: int
    places: int  # pairs of the row that holds most
    widths: tuple[int, ...]
    batches: list[Rows]
    needed: list[int]  # tokens of each batch's longest row

    def width(self, i: int) -> int:
        """That of batch i: the least that holds its rows."""
        return next(width for width in self.widths if width >= self.needed[i])


def plan(
    lengths_N: np.ndarray, batch: int, steps: int, *, seed: int = 0, widths: int = 1, unit: int = 1
) -> Plan:
    """`steps` batches of `batch` pairs, in a multiple of `unit` rows; a pair lies in one row.

    Raises InputError when there are no pairs.
    """
    taken = stratified(seed, lengths_N, batch * steps, batch).reshape(steps, batch)
    batches = [lengths_N[taken[i]].tolist() for i in range(steps)]
    rows = _rows(batches, int(lengths_N.max()), widths, unit)
    filled = [packed(lengths, rows) for lengths in batches]
    needed = [max(_sums(lengths, given)) for lengths, given in zip(batches, filled, strict=True)]
    return Plan(
        rows,
        max(len(row) for given in filled for row in given),
        _widths(needed, widths),
        [[[int(pairs[k]) for k in row] for row in given]
         for pairs, given in zip(taken, filled, strict=True)],
        needed,
    )  # fmt: skip


def stratified(seed: int, lengths_N: np.ndarray, places: int, strata: int) -> np.ndarray:
    """The pairs that training takes at its first `places`: any `strata` places in succession hold
    one pair of each stratum of lengths.

    Every epoch goes through all pairs once; a pair's place within its stratum is drawn anew.
    """
    N = len(lengths_N)
    if N < 1:
        raise InputError("no rows to train on: all were dropped, or there were none")
    by_length_N, epochs = np.argsort(lengths_N, kind="stable"), []
    for epoch in range(-(-places // N)):
        stratum_N = np.arange(epoch * N, (epoch + 1) * N) % strata  # of the epoch's places
        drawn_N = np.random.default_rng([seed, epoch]).random(N)
        order_N = np.empty(N, int)
        order_N[np.lexsort((drawn_N, stratum_N))] = by_length_N
        epochs.append(order_N)
    return np.concatenate(epochs)[:places]


def packed(lengths: Sequence[int], rows: int) -> Rows:
    """The texts in each of so many rows, the longest of which is nearly as short as it can be.

    Best fit, longest texts first, at rising widths (after multifit: Coffman, Garey and Johnson,
    1978).
    """
    order = sorted(range(len(lengths)), key=lambda k: -lengths[k])
    width = max(max(lengths), -(-sum(lengths) // rows))
    while (found := _fitted(order, lengths, rows, width)) is None:
        width += max(width // 128, 1)
    return found


def _fitted(order: list[int], lengths: Sequence[int], rows: int, width: int) -> Rows | None:
    loads, found = [0] * rows, [[] for _ in range(rows)]
    for k in order:
        fullest, best = -1, -1
        for row, load in enumerate(loads):
            if fullest < load <= width - lengths[k]:
                fullest, best = load, row
        if best < 0:
            return None
        loads[best] += lengths[k]
        found[best].append(k)
    return found


def _rows(batches: list[list[int]], longest: int, widths: int, unit: int) -> int:
    """As many rows as keep the share of pads below PADDING, or near the least there can be: short
    rows make attention cheap."""
    some = batches[:: max(len(batches) // SAMPLED, 1)]
    mean = sum(map(sum, some)) / len(some)
    most = max(min(round(mean / longest / 0.8 / unit), len(batches[0]) // unit), 1)
    tried = sorted({max(most - i * max(most // TRIED, 1), 1) for i in range(TRIED)})
    shares = {}
    for rows in (unit * n for n in tried):
        needed = [max(_sums(lengths, packed(lengths, rows))) for lengths in some]
        steps = _widths(needed, widths)
        area = sum(next(w for w in steps if w >= n) for n in needed) * rows
        shares[rows] = 1 - sum(map(sum, some)) / area
    most_padding = max(PADDING, min(shares.values()) + PADDING / 2)
    return max(rows for rows in shares if shares[rows] <= most_padding)


def _widths(needed: list[int], number: int) -> tuple[int, ...]:
    """Quantiles of what the batches need, the most of them the last; none that would save less
    than a fiftieth, which is not worth compiling for."""
    quantiles = np.arange(1, number + 1) / number
    found: list[int] = []
    for width in np.quantile(needed, quantiles, method="higher").astype(int).tolist()[::-1]:
        if not found or width <= 0.98 * found[-1]:
            found.append(width)
    return tuple(found[::-1])


def _sums(lengths: Sequence[int], rows: Rows) -> list[int]:
    return [sum(lengths[k] for k in row) for row in rows]
