"""Labels as rows for reward training: one a judgement, or one a pair; and what else was learnt.

Every row of pairs is one of `records.Pair`, with fields besides that reading leaves out. What does
not count is in none of them; "cannot judge" and "unwilling" prefer nothing and make no pair.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy.orm import Session

from glm_jax.data import records, writing
from glm_jax.data.collection.exports.annotation_tools import argilla, labelstudio
from glm_jax.data.collection.exports.daily import as_csv, daily
from glm_jax.data.collection.exports.verdicts import (
    Verdict,
    by_pair,
    by_prompt,
    verdicts,
    weights,
)
from glm_jax.data.collection.labelling.places import VOTES
from glm_jax.data.records import Pair
from glm_jax.errors import InputError

Rows: TypeAlias = Iterable[dict[str, Any]]


def raw(db: Session) -> Iterator[dict[str, Any]]:
    """One row a label, in the order in which they were made.

    A senior's decision has one vote more than all others of its pair together, so that they add up
    to it. It is a verdict on them, not one of them: its person is `decided_by`, not `annotator`.
    """
    known = weights(db)
    for said in verdicts(db):
        if said.verdict in VOTES and said.is_label:
            yield _decision(said, known[said.pair_id]) if said.decides else _judgement(said)


def repeats(db: Session) -> Iterator[dict[str, Any]]:
    """The hidden repeats, as rows like those of `raw`: no labels, but how steady people are."""
    found = (v for v in verdicts(db) if v.verdict in VOTES and v.repeat)
    return (_judgement(verdict) | {"repeat": True} for verdict in found)


def gold(db: Session) -> Iterator[dict[str, Any]]:
    """What was said of gold pairs, as rows like those of `raw`: no labels, but how good people are.

    `right`: whether it is the known answer.
    """
    found = (v for v in verdicts(db) if v.verdict in VOTES and v.is_gold)
    return (_judgement(v) | {"gold": True, "right": v.verdict == v.answer} for v in found)


def aggregated(db: Session) -> Iterator[dict[str, Any]]:
    """One row a pair, with the votes of all who judged it; ties are marked, and cycles stay.

    The strength is the mean of those who prefer what the majority does. A senior's decision has one
    vote more than all others of its pair together.
    """
    for said in by_pair(db):
        yield _pair(said)


def prompt_quality(db: Session) -> Iterator[dict[str, Any]]:
    """Prompts with a `quality` for `glm-rlhf data learn-quality`: what most people say of each.

    A person's flags on any pair of a prompt are his votes; who prefers without a flag calls it
    clear. Prompts on which people are divided are left out.
    """
    for said in by_prompt(db):
        flags: dict[str, set[str]] = {}
        for one in said:
            clear = one.verdict in VOTES and not one.flags
            flags.setdefault(one.annotator, set()).update(["clear"] if clear else one.flags)
        # who raises a flag on one pair of a prompt need not raise it again on the others
        votes = [(found - {"clear"}) or found for found in flags.values()]
        most = Counter(chain.from_iterable(votes)).most_common(2)
        if most and (len(most) == 1 or most[0][1] > most[1][1]):
            yield records.to_dict(_prompt(said[0])) | {"quality": most[0][0]}


KINDS: dict[str, tuple[Callable[[Session], Iterator[dict[str, Any]]], str]] = {
    "raw": (raw, "jsonl"),
    "aggregated": (aggregated, "jsonl"),
    "gold": (gold, "jsonl"),
    "repeats": (repeats, "jsonl"),
    "argilla": (argilla, "json"),
    "labelstudio": (labelstudio, "json"),
    "prompts": (prompt_quality, "jsonl"),
    "daily": (daily, "csv"),
}
"What can be exported, and in which format."


def rows(db: Session, kind: str) -> Iterator[dict[str, Any]]:
    """The rows of an export; InputError for an unknown kind."""
    if kind not in KINDS:
        raise InputError(f"unknown export {kind!r}; there are: {', '.join(KINDS)}")
    return KINDS[kind][0](db)


def encoded(kind: str, found: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """The rows as the parts of a file in the format of the kind."""
    lines = partial(map, writing.line)
    return {"csv": as_csv, "json": writing.array, "jsonl": lines}[KINDS[kind][1]](found)


def export(db: Session, kind: str, path: str | Path, watched: Callable[[Rows], Rows] = iter) -> int:
    """Writes an export to a file, which appears whole or not at all; how many rows there were.

    `watched` passes the rows on and sees them go, for a progress bar. The file is compressed if its
    name ends in `.gz` or `.zst`. Raises InputError for an unknown kind, a name that promises
    another format, and where there is nothing to write.
    """
    found, n = watched(rows(db, kind)), 0
    suffix = f".{KINDS[kind][1]}"
    if suffix not in Path(path).suffixes[-2:]:
        raise InputError(f"{path}: expected a name that ends in {suffix}, as {kind} is written")

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal n
        for row in found:
            n += 1
            yield row
        if not n:
            raise InputError(f"{path}: there is nothing yet to export as {kind}")

    writing.write_parts(path, encoded(kind, counted()))
    return n


def _judgement(said: Verdict) -> dict[str, Any]:
    """A judgement as a pair; of a tie, the first response stands as the chosen one."""
    first = said.verdict != "second"
    pair = _compared(
        said,
        first,
        id=str(said.id),
        tie=said.verdict == "tie",
        strength=said.strength,
        annotator=said.annotator,
        milliseconds=said.milliseconds,
    )
    mine, other = ("first", "second") if first else ("second", "first")
    sides = {mine: "chosen", other: "rejected", "tie": "tie"}
    more = {
        "side": "right" if first == said.swapped else "left",  # of the chosen one
        "criteria": {name: sides[value] for name, value in said.criteria.items()},
        "flags": said.flags,
        "comment": said.comment,
        "guidelines": said.guidelines,
        "created": said.created,
    }
    return records.to_dict(pair) | {name: value for name, value in more.items() if value}


def _decision(said: Verdict, weight: int) -> dict[str, Any]:
    row = _judgement(said)
    votes = dict.fromkeys(("chosen", "rejected", "tie"), 0)
    votes["tie" if row["tie"] else "chosen"] = weight
    return row | {"votes": votes, "decided_by": row.pop("annotator")}


def _pair(said: Sequence[Verdict]) -> dict[str, Any]:
    counts = Counter(one.verdict for one in said)
    counts.update({one.verdict: len(said) - 1 for one in said if one.decides})
    first = counts["first"] >= counts["second"]
    mine, other = ("first", "second") if first else ("second", "first")
    votes = records.Votes(chosen=counts[mine], rejected=counts[other], tie=counts["tie"])
    tie = records.is_tie(*votes.values())
    strengths = [one.strength for one in said if one.verdict == mine and one.strength is not None]
    pair = _compared(
        said[0],
        first,
        id=str(said[0].pair_id),
        tie=bool(tie),
        strength=sum(strengths) / len(strengths) if strengths and not tie else None,
        votes=votes,
    )
    return records.to_dict(pair)


def _compared(said: Verdict, first: bool, **more: Any) -> Pair:
    """The pair, the first response chosen or the second."""
    one, other = (said.first_text, said.first_id), (said.second_text, said.second_id)
    (chosen, chosen_id), (rejected, rejected_id) = (one, other) if first else (other, one)
    return Pair(
        prompt=said.messages,
        chosen=chosen,
        rejected=rejected,
        category=said.category,
        language=said.language,
        prompt_id=said.prompt_id,
        chosen_id=chosen_id,
        rejected_id=rejected_id,
        task=said.task,
        **more,
    )


def _prompt(said: Verdict) -> records.Prompt:
    return records.Prompt(
        id=said.prompt_id, prompt=said.messages, category=said.category, task=said.task
    )
