"""Who judges which pair next, and for how long it is theirs.

What a person has open comes first; `drawing` says what comes then. An assignment is a lease: when
it is over and someone else asks for a pair, its pair goes back. It may come to the same person
again, who has not judged it.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, aliased

from glm_jax.data.collection.drawing import draw_next
from glm_jax.data.collection.places import recount
from glm_jax.data.collection.practice import practice_round
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import handing_out, locked
from glm_jax.data.collection.tables import (
    Assignment,
    Change,
    Judgement,
    Pair,
    Person,
    Prompt,
    Response,
)
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
    round), or "active": all is judged or with others. Administrators judge nothing. Call it in
    `writing`, with a person of that session.
    """
    handing_out(db)
    person = locked(db, person)
    if person.role == "administrator" or person.state in ("paused", "failed"):
        return None
    _return_expired(db, person, now)
    assignment = db.scalars(
        select(Assignment)
        .where(Assignment.person_id == person.id, Assignment.fate == "open")
        .order_by(Assignment.number)
        .limit(1)
    ).first() or draw_next(db, person, config, now)
    if assignment is None:
        return None
    assignment.leased_until = now + 60 * config.lease_minutes
    db.flush()
    return _shown(db, person, assignment, config)


def reassign(db: Session, person: Person, by: Person, now: float) -> int:
    """Gives the labels that the person has open to others at once; how many."""
    handing_out(db)
    person = locked(db, person)
    returned = _return(db, Assignment.person_id == person.id)
    about = {"pairs": returned}
    db.add(Change(kind="reassigned", person_id=person.id, by_id=by.id, about=about, created=now))
    return returned


def _return_expired(db: Session, person: Person, now: float) -> None:
    """Takes back what others have not judged in time."""
    _return(db, Assignment.leased_until < now, Assignment.person_id != person.id)


def _return(db: Session, *which: ColumnElement[bool]) -> int:
    returned = db.scalars(
        select(Assignment)
        .join(Pair)
        .where(Assignment.fate == "open", ~Assignment.repeat, Pair.purpose == "label", *which)
        .with_for_update(key_share=True, of=Assignment)
        .execution_options(populate_existing=True)
    ).all()
    for assignment in returned:
        assignment.fate = "returned"
    recount(db, [assignment.pair_id for assignment in returned])
    return len(returned)


def _shown(db: Session, person: Person, assignment: Assignment, config: CollectionConfig) -> Shown:
    first, second = aliased(Response), aliased(Response)
    pair, prompt, *texts = db.execute(
        select(Pair, Prompt, first.text, second.text)
        .join(Prompt, Prompt.id == Pair.prompt_id)
        .join(first, first.id == Pair.first_id)
        .join(second, second.id == Pair.second_id)
        .where(Pair.id == assignment.pair_id)
    ).one()
    left, right = reversed(texts) if assignment.swapped else texts
    undone = select(func.count()).where(Judgement.assignment_id == assignment.id)
    done, total = _progress(db, person, config)
    return Shown(
        assignment_id=assignment.id,
        attempt=1 + (db.scalar(undone) or 0),
        messages=prompt.messages,
        left=left,
        right=right,
        category=prompt.category,
        language=prompt.language,
        practice=pair.purpose == "practice",
        done=done,
        total=total,
    )


def _progress(db: Session, person: Person, config: CollectionConfig) -> tuple[int, int]:
    """What the person has done, of about how much.

    Gold and repeats count like labels: a bar that stood still would give them away.
    """
    practice = practice_round(db, person, config)
    if person.state == "practising":
        return practice.judged, practice.total
    answered = db.scalar(
        select(func.count()).where(Assignment.person_id == person.id, Assignment.fate == "answered")
    )
    people = db.scalar(
        select(func.count()).where(
            Person.role != "administrator", Person.state.in_(("practising", "active"))
        )
    )
    pairs = db.scalar(select(func.max(Pair.id)))  # all are kept: their number, at once
    done = (answered or 0) - practice.judged
    share = 1 + config.overlap * (config.annotators - 1)
    labels = (pairs or 0) * min(share / max(people or 0, 1), 1.0)
    return done, max(done + 1, round(labels * (1 + config.gold + config.repeats)))
