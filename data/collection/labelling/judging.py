"""Judgements, and what takes them back: all of it is only ever added."""

from typing import Any

from sqlalchemy import Select, bindparam, exists, func, select
from sqlalchemy.orm import Session

from glm_jax.data.collection import Refused
from glm_jax.data.collection.labelling.answers import Answer, checked
from glm_jax.data.collection.labelling.places import invalidated, recount, undone
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import fresh, handing_out, locked
from glm_jax.data.collection.tables import (
    Assignment,
    Guidelines,
    Judgement,
    Pair,
    Person,
    Retraction,
)

UNDOS = 10  # assignments that can be open again at a time
GRACE = 60  # seconds until the page asks for what was undone, which renews the lease
RECENT = 32  # answered assignments among which the last judgement is
LAST = (
    select(Judgement)
    .where(Judgement.assignment_id == bindparam("assignment"))
    .order_by(Judgement.attempt.desc())
    .limit(1)
)
ANSWERED = (
    select(Assignment.id)
    .where(Assignment.person_id == bindparam("person"), Assignment.fate == "answered")
    .order_by(Assignment.number.desc())
    .limit(RECENT)
)
LATEST = (
    select(Judgement)
    .where(Judgement.assignment_id.in_(bindparam("answered", expanding=True)))
    .order_by(Judgement.id.desc())
    .limit(1)
)
VERSION = select(func.max(Guidelines.version))


def judge(
    db: Session, person: Person, answer: Answer, config: CollectionConfig, now: float
) -> Judgement:
    """Records an answer; the same answer to the same attempt again gives the same judgement.

    Raises Refused, and changes nothing, for an assignment that is forged, another person's,
    answered otherwise, undone since, or given to someone else, and for wrong values.
    Call it in `writing`.
    """
    person = locked(db, person)
    assignment = fresh(db, Assignment, answer.assignment_id)
    if assignment is None or assignment.person_id != person.id:
        raise Refused("this pair was not given to you")
    said = checked(answer, assignment.swapped, config)
    last = db.scalars(LAST, {"assignment": assignment.id}).first()
    if assignment.fate == "answered":
        assert last is not None
        if answer.attempt in (None, last.attempt) and _says(last, said):
            return last
        raise Refused("you have judged this pair already; undo that to judge it again")
    attempt = 1 + (last.attempt if last else 0)
    if answer.attempt not in (None, attempt):
        raise Refused("this form is old: you have taken its answer back; load the page again")
    if person.state in ("paused", "failed"):
        raise Refused("you judge no pairs at present")
    if assignment.fate == "returned" and not _has_place(db, assignment):
        raise Refused("your time for this pair was over, and someone else has it now")
    newest = db.scalar(VERSION) or 0
    if answer.guidelines is not None and not 1 <= answer.guidelines <= newest:
        raise Refused("there is no such version of the guidelines")
    judgement = Judgement(
        assignment_id=assignment.id,
        attempt=attempt,
        milliseconds=answer.milliseconds,
        guidelines=answer.guidelines,
        created=now,
        **said,
    )
    db.add(judgement)
    assignment.fate = "answered"
    _changed(db, assignment)
    return judgement


def latest(db: Session, person: Person) -> Judgement | None:
    """What `undo` would take back."""
    answered = db.scalars(ANSWERED, {"person": person.id}).all()
    return db.scalars(LATEST, {"answered": answered}).first()


def undo(
    db: Session, person: Person, now: float, named: tuple[str, int | None] | None = None
) -> str | None:
    """Takes the person's last judgement back and opens its assignment again: its id.

    None if there is nothing to take back, or ten are open again already. Raises Refused if
    someone else has the pair by now. `named`: the assignment and attempt that a page showed as the
    last; asked for again it is undone once, and Refused if another is the last by now. Call it in
    `writing`.
    """
    person = locked(db, person)
    last = latest(db, person)
    if named and (last is None or named != (last.assignment_id, last.attempt)):
        if _is_undone(db, person, *named):
            return named[0]
        raise Refused("this is not what you judged last; load the page again")
    if person.state in ("paused", "failed"):
        raise Refused("you judge no pairs at present")
    if last is None:
        return None
    opened_again = select(Assignment.id).where(
        Assignment.person_id == person.id,
        Assignment.fate == "open",
        exists().where(Judgement.assignment_id == Assignment.id),
    )
    if len(db.scalars(opened_again).all()) >= UNDOS:
        return None
    assignment = fresh(db, Assignment, last.assignment_id)
    if last.verdict == "unwilling" and not _has_place(db, assignment):
        raise Refused("someone else has this pair now")
    assignment.fate, assignment.leased_until = "open", now + GRACE
    db.add(
        Retraction(
            judgement_id=last.id, person_id=person.id, kind="undone", by_id=person.id, created=now
        )
    )
    _changed(db, assignment)
    return assignment.id


def invalidate(db: Session, person: Person, by: Person, reason: str, now: float) -> None:
    """None of the person's judgements counts until `restore`; the pairs go to others again.

    Judgements that the person adds meanwhile do not count either: `pause` keeps off more.
    """
    _retract(db, person, by, reason, now, "invalidated")


def restore(db: Session, person: Person, by: Person, reason: str, now: float) -> None:
    """All of the person's judgements that were not undone count again."""
    _retract(db, person, by, reason, now, "restored")


def counted() -> Select[tuple[Judgement]]:
    """The judgements that count: not undone, of nobody who is invalidated now, not of practice.

    Gold and repeats are among them. Assignment and Pair are joined already, for
    `.where(Pair.purpose == "label", ~Assignment.repeat)` or `.add_columns(Assignment, Pair)`.
    """
    return (
        select(Judgement)
        .join(Assignment, Assignment.id == Judgement.assignment_id)
        .join(Pair, Pair.id == Assignment.pair_id)
        .where(Pair.purpose != "practice", ~undone(), Assignment.person_id.not_in(invalidated()))
    )


def _says(judgement: Judgement, said: dict[str, Any]) -> bool:
    return all(getattr(judgement, name) == value for name, value in said.items())


def _is_undone(db: Session, person: Person, assignment_id: str, attempt: int | None) -> bool:
    of_person = select(Retraction.id).join(Judgement, Judgement.id == Retraction.judgement_id)
    named = of_person.where(
        Retraction.person_id == person.id,
        Judgement.assignment_id == assignment_id,
        Judgement.attempt == attempt,
    )
    return db.scalars(named).first() is not None


def _has_place(db: Session, assignment: Assignment) -> bool:
    """Whether a place that was given back is still free."""
    pair = fresh(db, Pair, assignment.pair_id)
    if pair.purpose != "label" or assignment.repeat:
        return True
    return pair.missing > 0 and (pair.queue == "senior") == assignment.to_decide


def _changed(db: Session, assignment: Assignment) -> None:
    if not assignment.repeat:
        recount(db, [assignment.pair_id])


def _retract(db: Session, person: Person, by: Person, reason: str, now: float, kind: str) -> None:
    """Adds the event, unless it changes nothing, and counts the person's pairs again."""
    handing_out(db)
    person = locked(db, person)
    is_invalidated = person.id in db.scalars(invalidated()).all()
    if is_invalidated == (kind == "invalidated"):
        return
    db.add(Retraction(person_id=person.id, kind=kind, reason=reason, by_id=by.id, created=now))
    answered = select(Assignment.pair_id).where(
        Assignment.person_id == person.id, Assignment.fate == "answered", ~Assignment.repeat
    )
    recount(db, db.scalars(answered).all())
