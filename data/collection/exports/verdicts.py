"""Every judgement that counts, with the texts that were judged: what all exports are made of."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import func
from sqlalchemy.orm import Session, aliased

from glm_jax.data.collection.labelling.judging import counted
from glm_jax.data.collection.labelling.places import VOTES, decides
from glm_jax.data.collection.tables import Assignment, Judgement, Pair, Person, Prompt, Response

BATCH = 1000  # rows that are in memory at a time


class Verdict(NamedTuple):
    """A judgement, with its pair and the texts."""

    id: int
    verdict: str
    strength: int | None
    criteria: dict[str, Any]
    flags: list[Any]
    comment: str | None
    milliseconds: int | None
    guidelines: int | None
    created: float
    annotator: str
    swapped: bool
    repeat: bool
    decides: bool
    pair_id: int
    purpose: str
    answer: str | None
    prompt_id: str
    messages: list[Any]
    category: str | None
    language: str | None
    task: dict[str, Any] | None
    first_id: str
    first_text: str
    second_id: str
    second_text: str

    @property
    def is_label(self) -> bool:
        """Neither of gold, whose answer was known before, nor a hidden repeat."""
        return self.purpose == "label" and not self.repeat

    @property
    def is_gold(self) -> bool:
        """Of a pair whose answer is known, seen for the first time."""
        return self.purpose == "gold" and not self.repeat


def verdicts(db: Session, *order: Any) -> Iterator[Verdict]:
    """As they were made, or in another order; never all in memory."""
    first, second = aliased(Response), aliased(Response)
    columns = {
        "id": Judgement.id,
        "verdict": Judgement.verdict,
        "strength": Judgement.strength,
        "criteria": Judgement.criteria,
        "flags": Judgement.flags,
        "comment": Judgement.comment,
        "milliseconds": Judgement.milliseconds,
        "guidelines": Judgement.guidelines,
        "created": Judgement.created,
        "annotator": Person.name,
        "swapped": Assignment.swapped,
        "repeat": Assignment.repeat,
        "decides": decides(),
        "pair_id": Pair.id,
        "purpose": Pair.purpose,
        "answer": Pair.answer,
        "prompt_id": Prompt.id,
        "messages": Prompt.messages,
        "category": Prompt.category,
        "language": Prompt.language,
        "task": Prompt.task,
        "first_id": first.id,
        "first_text": first.text,
        "second_id": second.id,
        "second_text": second.text,
    }
    found = db.execute(
        counted()
        .with_only_columns(*(columns[name] for name in Verdict._fields))
        .join(Person, Assignment.person_id == Person.id)
        .join(Prompt, Pair.prompt_id == Prompt.id)
        .join(first, Pair.first_id == first.id)
        .join(second, Pair.second_id == second.id)
        .order_by(*order, Judgement.id)
        .execution_options(yield_per=BATCH)
    )
    return (Verdict(*row) for row in found)


def by_pair(db: Session) -> Iterator[list[Verdict]]:
    """The labels of each pair that prefer or tie, in the order of the pairs' ids."""
    for _, said in groupby(verdicts(db, Pair.id), key=lambda verdict: verdict.pair_id):
        once = [one for one in said if one.verdict in VOTES and one.is_label]
        if once:
            yield once


def deciding(said: list[Verdict]) -> list[Verdict]:
    """What decides a pair: the senior's decision, or everything that was said of it."""
    return [one for one in said if one.decides] or said


def weights(db: Session) -> dict[int, int]:
    """How many votes the decision of each decided pair has: one more than all others together."""
    of_pairs = (
        counted()
        .with_only_columns(Pair.id, func.count())
        .where(Pair.decision.is_not(None), ~Assignment.repeat, Judgement.verdict.in_(VOTES))
        .group_by(Pair.id)
    )
    return dict(db.execute(of_pairs).all())


def by_prompt(db: Session) -> Iterator[list[Verdict]]:
    """Everything that was said of the pairs of each prompt."""
    for _, said in groupby(verdicts(db, Prompt.id), key=lambda verdict: verdict.prompt_id):
        yield list(said)
