"""Which pairs teach: filtering of preferences (arXiv 2404.00934, section 2).

A pair is dropped for the first of REASONS that fits, and what a step drops plays no part in those
behind it:
  invalid         no user message says anything, or the row contradicts itself: votes against its
                  own choice, one response id for two texts
  empty           a response is blank
  identical       both responses are the same text
  too_long        longer than the limit handed in
  annotator       its annotator disagrees with the others more often than not
  hasty           judged faster than anyone reads
  added_up        another judgement of these two responses stays, with all their votes
  tie             as many votes for one as for the other, or more for neither
  cycle           the preferences over one prompt's responses lead back to where they started
  duplicate       the same prompt and responses stand in an earlier pair, under other ids
  too_many        its prompt has more pairs than wanted
  held_out        its first user message stands in held-out data
  near_duplicate  an earlier pair has almost the same prompt
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from glm_jax.data import agreement, duplicates, votes
from glm_jax.data.cycles import Cycles, Cyclic, cyclic
from glm_jax.data.pair_table import (
    EMPTY,
    IDENTICAL,
    INVALID,
    NONE,
    TIE,
    TOTAL,
    Groups,
    PairTable,
    group_name,
    scan,
)  # fmt: skip
from glm_jax.data.records import Pair, to_dict
from glm_jax.errors import InputError

REASONS = (
    "kept", "invalid", "empty", "identical", "too_long", "annotator", "hasty", "added_up", "tie",
    "cycle", "duplicate", "too_many", "held_out", "near_duplicate",
)  # fmt: skip
CODES = {reason: np.uint8(code) for code, reason in enumerate(REASONS)}


class Dropped(NamedTuple):
    pair: Pair
    reason: str


class Filtered(NamedTuple):
    reasons: np.ndarray  # uint8 [N], index in REASONS
    sums: votes.Sums | None
    annotators: list[agreement.Agreement]
    "those whose pairs were dropped"
    cycles: Cyclic


def filter_table(
    table: PairTable,
    *,
    lengths: np.ndarray | None = None,
    max_length: int | None = None,
    min_agreement: float = 0.5,
    min_ms_per_char: float | None = None,
    add_up: bool = True,
    cycles: Cycles = "drop",
    max_pairs_per_prompt: int | None = None,
    held_out: Iterable[PairTable] = (),
) -> Filtered:
    """What becomes of each pair of the table; all but `near_duplicate`, which takes the texts.

    `lengths` [N], of prompt and longer response, are held against `max_length`: characters if
    not handed in. An annotator is judged by at least 20 pairs that others judged too, and
    dropped if the upper end of the 95 % interval of his agreement is below `min_agreement`.
    Without `add_up`, every judgement stays a row of its own (duplicates too), and two that
    contradict each other are a cycle. `held_out`: tables made with the same seed.
    """
    check_options(max_length, min_agreement, min_ms_per_char, max_pairs_per_prompt)
    reasons = np.zeros(len(table), np.uint8)

    def drop(reason: str, which: np.ndarray) -> None:
        """`which`: bool [N], or rows."""
        mask = which
        if which.dtype != bool:
            mask = np.zeros(len(table), bool)
            mask[which] = True
        reasons[mask & (reasons == 0)] = CODES[reason]

    for reason, flag in (("invalid", INVALID), ("empty", EMPTY), ("identical", IDENTICAL)):
        drop(reason, (table.flags & np.uint8(flag)) > 0)
    if max_length is not None:
        drop("too_long", (characters(table) if lengths is None else lengths) > max_length)

    bad: list[agreement.Agreement] = []
    if min_agreement > 0 and table.names["annotator"]:
        found = agreement.agreements(table, votes.judgements(table, reasons == 0))
        bad = [one for one in found if one.high < min_agreement]
        drop("annotator", agreement.by_annotators(table, {one.annotator for one in bad}))
    if min_ms_per_char is not None:
        drop("hasty", agreement.hasty(table, min_ms_per_char))

    tie, sums = (table.flags & np.uint8(TIE)) > 0, None
    if add_up:
        sums = votes.add_up(table, votes.judgements(table, reasons == 0))
        drop("added_up", sums.others)
        tie[sums.rows] = sums.ties
    drop("tie", tie)

    margins = votes.margins(table, sums) if cycles == "minimal" else None
    loops = cyclic(table, reasons == 0, margins, cycles)
    drop("cycle", loops.rows)

    if add_up:
        drop("duplicate", duplicates.same_texts(table, reasons == 0))
    if max_pairs_per_prompt is not None:
        drop("too_many", duplicates.beyond(table, reasons == 0, max_pairs_per_prompt))
    drop("held_out", duplicates.leaked(table, held_out))
    return Filtered(reasons, sums, bad, loops)


def check_options(
    max_length: int | None = None,
    min_agreement: float = 0.5,
    min_ms_per_char: float | None = None,
    max_pairs_per_prompt: int | None = None,
    near_duplicates: float | None = None,
) -> None:
    """Raises InputError for settings that make no sense."""
    for name, value, least in (
        ("max_length", max_length, 1),
        ("min_ms_per_char", min_ms_per_char, 0),
        ("max_pairs_per_prompt", max_pairs_per_prompt, 1),
    ):
        if value is not None and not value >= least:  # NaN is none either
            raise InputError(f"{name} must be at least {least}, got {value}")
    for name, share in (("min_agreement", min_agreement), ("near_duplicates", near_duplicates)):
        if share is not None and not 0 <= share <= 1:
            raise InputError(f"{name} is a share from 0 to 1, got {share}")


def characters(table: PairTable) -> np.ndarray:
    """Of prompt and longer response, [N]."""
    longer = np.maximum(table.chosen_lengths, table.rejected_lengths)
    return table.prompt_lengths.astype(np.int64) + longer


def filter_pairs(pairs: Sequence[Pair], **options: Any) -> tuple[list[Pair], list[Dropped]]:
    """Kept pairs and dropped ones, both in the order given; `options`: those of `filter_table`."""
    found = filter_table(scan([pairs]), **options)
    judged = Summed.of(found.sums, 0, len(pairs))
    kept, dropped = [], []
    for row, (pair, code) in enumerate(zip(pairs, found.reasons.tolist(), strict=True)):
        changed = judged.of_row(row)
        pair = replace(pair, **changed) if changed else pair
        if code:
            dropped.append(Dropped(pair, REASONS[code]))
        else:
            kept.append(pair)
    return kept, dropped


class Summed(NamedTuple):
    """Writes the votes into the pairs that stay for several judgements."""

    votes: dict[int, tuple[int, int, int]]  # by row
    ties: frozenset[int]

    @classmethod
    def of(cls, sums: votes.Sums | None, start: int, stop: int) -> "Summed":
        """For the rows start <= row < stop of the table, counted from start."""
        if sums is None:
            return cls({}, frozenset())
        first, last = np.searchsorted(sums.rows, [start, stop])
        rows = (sums.rows[first:last] - start).tolist()
        counts = map(tuple, sums.votes[first:last].tolist())
        ties = [row for row, tie in zip(rows, sums.ties[first:last].tolist(), strict=True) if tie]
        return cls(dict(zip(rows, counts, strict=True)), frozenset(ties))

    def of_row(self, row: int) -> dict[str, Any]:
        """The fields that change."""
        if row not in self.votes:
            return {}
        chosen, rejected, neither = self.votes[row]
        return {
            "votes": {"chosen": chosen, "rejected": rejected, "tie": neither},
            "tie": row in self.ties,
            "annotator": None,  # it is several annotators' now
            "milliseconds": None,
        }


def count(reasons: np.ndarray, groups: Groups) -> dict[str, dict[str, int]]:
    """Pairs by reason, kept and in total: for "all", and for every group that has a name."""
    n = len(REASONS)
    table = np.bincount(
        groups.codes.astype(np.int64) * n + reasons, minlength=len(groups.names) * n
    )
    by_group = dict(zip(groups.names, table.reshape(-1, n).tolist(), strict=True))
    by_group.pop(NONE, None)
    rows = {TOTAL: np.bincount(reasons, minlength=n).tolist(), **dict(sorted(by_group.items()))}
    return {
        name: {**dict(zip(REASONS[1:], row[1:], strict=True)), "kept": row[0], "total": sum(row)}
        for name, row in rows.items()
    }


def count_pairs(kept: Sequence[Pair], dropped: Sequence[Dropped]) -> dict[str, dict[str, int]]:
    """`count` for lists, by category."""
    fates = [(group_name(pair.category), "kept") for pair in kept]
    fates += [(group_name(pair.category), reason) for pair, reason in dropped]
    names = sorted({name for name, _ in fates})
    codes = {name: code for code, name in enumerate(names)}
    reasons = np.array([CODES.get(reason, 0) for _, reason in fates], np.uint8)
    return count(reasons, Groups(names, np.array([codes[name] for name, _ in fates], np.int32)))


def dropped_row(pair: Pair, reason: str) -> dict[str, Any]:
    """One JSON object a dropped pair, with its reason."""
    return {"reason": reason, **to_dict(pair)}


def written(summed: Summed, reasons: np.ndarray, row: int, pair: Pair) -> dict[str, Any]:
    """What is written of a pair that stays, or of one that was dropped; `reasons` are codes."""
    reason = REASONS[reasons[row]]
    values = to_dict(pair) if reason == "kept" else dropped_row(pair, reason)
    changed = summed.of_row(row)
    return {k: v for k, v in (values | changed).items() if v is not None} if changed else values
