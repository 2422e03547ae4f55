"""Judgements, and what takes them back: all of it is only ever added."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Select
from sqlalchemy.orm import Session

from glm_jax.data.collection import Refused as Refused
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.tables import Judgement, Person

Side = Literal["left", "right", "tie"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a person said of an assignment, in sides. Nothing in it is trusted."""

    assignment_id: str
    side: str
    "left, right, tie, cannot_judge or unwilling"
    strength: int | None = None
    "1 slight, 2 clear: needed for left and right, ignored otherwise"
    criteria: Mapping[str, str] = field(default_factory=dict)
    "helpfulness, harmlessness, fluency: left, right or tie"
    flags: tuple[str, ...] = ()
    "of the prompt: unclear_intention, unclear_semantics, unanswerable"
    comment: str | None = None
    milliseconds: int = 0
    "of visible, active time"
    attempt: int | None = None
    "from `Shown`; None: whichever is due"


def judge(
    db: Session, person: Person, answer: Answer, config: CollectionConfig, now: float
) -> Judgement:
    """Records an answer; the same answer to the same attempt again gives the same judgement.

    Raises Refused, and changes nothing, for an assignment that is forged, another person's,
    answered otherwise, undone since, or given to someone else, and for wrong values.
    Call it in `writing`.
    """
    raise NotImplementedError


def undo(db: Session, person: Person, now: float) -> str | None:
    """Takes the person's last judgement back and opens its assignment again: its id.

    None if there is nothing to take back, or ten are open again already. Raises Refused if
    someone else has the pair by now.
    """
    raise NotImplementedError


def invalidate(db: Session, person: Person, by: Person, reason: str, now: float) -> None:
    """None of the person's judgements counts until `restore`; the pairs go to others again."""
    raise NotImplementedError


def restore(db: Session, person: Person, by: Person, reason: str, now: float) -> None:
    """All of the person's judgements that were not undone count again."""
    raise NotImplementedError


def counted(db: Session) -> Select[tuple[Judgement]]:
    """The judgements that count: not undone, of nobody who is invalidated now, not of practice.

    Gold and repeats are among them. Assignment and Pair are joined already, for
    `.where(Pair.purpose == "label", ~Assignment.repeat)` or `.add_columns(Assignment, Pair)`.
    """
    raise NotImplementedError
