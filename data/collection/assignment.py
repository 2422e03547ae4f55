"""Who judges which pair next."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.tables import Person
from glm_jax.data.records import Message


@dataclass(frozen=True, kw_only=True)
class Shown:
    """All that an annotator's page may know of a pair."""

    assignment_id: str
    attempt: int
    "1, and one more after every undo: it goes into the form, so that an old form is recognised"
    messages: list[Message]
    left: str
    right: str
    category: str | None
    language: str | None
    practice: bool
    done: int
    "judged by this person: in practice of the practice round, then of all else"
    total: int
    "in practice exactly; then about as many as will come to this person"


def next_assignment(
    db: Session, person: Person, config: CollectionConfig, now: float
) -> Shown | None:
    """The pair that the person judges next; the same one until it is judged or its lease is over.

    None if there is nothing for now; `person.state` says why: "paused", "failed" (the practice
    round), or "active": all is judged or with others. Call it in `writing`.
    """
    raise NotImplementedError


def reassign(db: Session, person: Person, by: Person, now: float) -> int:
    """Gives the pairs that the person has open to others at once; how many."""
    raise NotImplementedError
