"""Annotators who disagree with everybody else, or answer faster than anyone reads."""

from typing import NamedTuple

import numpy as np

from glm_jax.data.pair_table import PairTable
from glm_jax.data.votes import Judgements

SHARED = 20  # below so many shared pairs nothing is said about an annotator
Z = 1.959964  # of a 95 % interval


class Agreement(NamedTuple):
    """How often an annotator says what the majority of the others says of the same pair."""

    annotator: str
    shared: int
    agreed: int
    low: float
    high: float


def agreements(table: PairTable, judgements: Judgements) -> list[Agreement]:
    """Every annotator with SHARED pairs or more on which the others have a majority.

    Leave-one-out: his own votes are not among "the others". Pairs that he, or they, call a tie
    are left out. The interval is Wilson's (1927).
    """
    rows, group = judgements.rows, judgements.groups
    value = judgements.sides * (judgements.votes[:, 0] - judgements.votes[:, 1])
    who = table.annotator[rows]
    total = np.bincount(group, value) if len(rows) else np.zeros(0)
    known = who >= 0
    people = len(table.names["annotator"])
    both, place = np.unique(
        group[known].astype(np.int64) * max(people, 1) + who[known], return_inverse=True
    )
    own = np.bincount(place, value[known], minlength=len(both))
    pair, person = np.divmod(both, max(people, 1))
    others, mine = np.sign(total[pair] - own), np.sign(own)
    shared = (others != 0) & (mine != 0)
    counts = np.bincount(person[shared], minlength=people)
    agreed = np.bincount(person[shared & (others == mine)], minlength=people)
    return [
        Agreement(name, n, k, *wilson(k, n))
        for name, n, k in zip(
            table.names["annotator"], counts.tolist(), agreed.tolist(), strict=True
        )
        if n >= SHARED
    ]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share = successes / n
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * (share * (1 - share) / n + Z**2 / (4 * n**2)) ** 0.5
    return middle - half, middle + half


def by_annotators(table: PairTable, names: set[str]) -> np.ndarray:
    """Bool [N]: the pair was judged by one of these."""
    bad = np.array([name in names for name in table.names["annotator"]] + [False])
    return bad[table.annotator]


def hasty(table: PairTable, min_ms_per_char: float) -> np.ndarray:
    """Bool [N]: judged in less time than both responses take at `min_ms_per_char` a character."""
    characters = table.chosen_lengths.astype(np.float64) + table.rejected_lengths
    return table.milliseconds < min_ms_per_char * characters
