"""Several judgements of the same two responses of a prompt, added up."""

from typing import NamedTuple

import numpy as np

from glm_jax.data.pair_table import TIE, PairTable, mixed
from glm_jax.data.records import is_tie


class Judgements(NamedTuple):
    """The K rows whose unordered pair has several, grouped by pair and in order within."""

    rows: np.ndarray  # [K] in the table
    groups: np.ndarray  # [K] 0, 0, 1, 1, 1, ...
    sides: np.ndarray  # [K] 1: the response with the lower hash is the chosen one; else -1
    votes: np.ndarray  # int64 [K, 3]: for chosen, for rejected, for neither


class Sums(NamedTuple):
    """One entry a pair that was judged several times, in the order of the rows that stay."""

    rows: np.ndarray  # the row that stays
    votes: np.ndarray  # int64 [, 3]: for its chosen, for its rejected, for neither
    ties: np.ndarray
    others: np.ndarray  # the rows whose votes went into these


def judgements(table: PairTable, alive: np.ndarray) -> Judgements:
    """The rows, among those where `alive` [N] is true, of pairs that were judged several times.

    Who judges a pair again in the same way has one vote all the same.
    """
    low, high = np.minimum(table.chosen, table.rejected), np.maximum(table.chosen, table.rejected)
    keys = mixed(table.prompts, low, high)
    del low, high
    rows = repeated(keys, alive)
    changes = keys[rows[1:]] != keys[rows[:-1]]
    groups = np.concatenate([np.zeros(min(len(rows), 1), int), np.cumsum(changes)])
    sides = np.where(table.chosen[rows] < table.rejected[rows], 1, -1)
    votes = table.votes[rows].astype(np.int64)
    single, tie = ~votes.any(axis=1), (table.flags[rows] & TIE) > 0
    votes[single & tie, 2] = 1
    votes[single & ~tie, 0] = 1
    found = Judgements(rows, groups, sides, votes)
    votes[~_first_of_its_annotator(table, found)] = 0
    return found


def repeated(keys: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """The rows, among those alive, whose key others of them have too: sorted by (key, row)."""
    rows = np.flatnonzero(alive)
    rows = rows[np.argsort(keys[rows], kind="stable")]
    ordered = keys[rows]
    same = ordered[1:] == ordered[:-1]
    edge = np.zeros(min(len(rows), 1), bool)
    return rows[np.concatenate([same, edge]) | np.concatenate([edge, same])]


def add_up(table: PairTable, found: Judgements) -> Sums:
    """The majority of each pair's votes.

    The row that stays is the first one that says what the majority says, or, where all rows of
    its side are ties by themselves, the first one of that side; of a tie (`is_tie`) it is the
    first. A majority whose side stands first in no row is a tie, too.
    """
    rows, groups, sides, votes = found
    up = sides > 0
    n = int(groups[-1]) + 1 if len(groups) else 0

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(groups, values, minlength=n).astype(np.int64)

    low = total(np.where(up, votes[:, 0], votes[:, 1]))
    high = total(np.where(up, votes[:, 1], votes[:, 0]))
    neither = total(votes[:, 2])
    winner = np.where(is_tie(low, high, neither), 0, np.where(low > high, 1, -1))
    named = sides == winner[groups]
    winner[np.bincount(groups[named], minlength=n) == 0] = 0
    ties = winner == 0
    says_so = named & ((table.flags[rows] & TIE) == 0)
    best = np.lexsort((~named, ~says_so, groups))  # stable: of equally good rows the first
    first = best[np.searchsorted(groups, np.arange(n))]
    chosen = np.where(up[first], low, high)
    rejected = np.where(up[first], high, low)
    order = np.argsort(rows[first])
    summed = np.stack([chosen, rejected, neither], 1)
    return Sums(rows[first][order], summed[order], ties[order], np.delete(rows, first))


def margins(table: PairTable, sums: Sums | None) -> np.ndarray:
    """How many votes more a pair has than its reverse, [N]; 1 where votes are not given."""
    given = table.votes.any(axis=1)
    net = table.votes[:, 0].astype(np.int64) - table.votes[:, 1]
    found = np.where(given, net, 1)
    if sums is not None:
        found[sums.rows] = sums.votes[:, 0] - sums.votes[:, 1]
    return found


def _first_of_its_annotator(table: PairTable, found: Judgements) -> np.ndarray:
    """Bool [K]: not what this annotator has said of this pair before."""
    who = table.annotator[found.rows]
    known = np.flatnonzero((who >= 0) & (found.votes.sum(axis=1) == 1))
    neither, chosen = found.votes[known, 2] > 0, found.votes[known, 0] > 0
    said = np.where(neither, 0, found.sides[known] * np.where(chosen, 1, -1))
    people = len(table.names["annotator"])
    keys = 3 * (found.groups[known] * people + who[known]) + said
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    once = np.ones(len(who), bool)
    once[known[order[1:][keys[1:] == keys[:-1]]]] = False
    return once
