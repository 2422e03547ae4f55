"""Who judges which pair next, and for how long it is theirs.

What a person has open comes first; `drawing` says what comes then. An assignment is a lease: when
it is over and someone else asks for a pair, its pair goes back. It may come to the same person
again, who has not judged it; after `reassign` only when another lease would be over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session, aliased

from glm_jax.data.collection.labelling.drawing import draw_next
from glm_jax.data.collection.labelling.places import recount
from glm_jax.data.collection.labelling.practice import practice_round
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import handing_out, locked
from glm_jax.data.collection.tables import (
    Assignment,
    Change,
    Guidelines,
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
    guidelines: int
    "the version in force, which the form carries"
    done: int
    "judged by this person: in practice of the practice round, then of everything"
    total: int
    "in practice exactly; then about as many as will come to this person"


OPEN = (
    select(Assignment)
    .where(Assignment.person_id == bindparam("person"), Assignment.fate == "open")
    .order_by(Assignment.number)
    .limit(1)
)
IS_HELD = Assignment.fate == "open", ~Assignment.repeat, Pair.purpose == "label"
HELD = (  # and can be given to others
    select(Assignment)
    .join(Pair)
    .where(*IS_HELD)
    .with_for_update(key_share=True, of=Assignment)
    .execution_options(populate_existing=True)
)
EXPIRED = HELD.where(
    Assignment.leased_until < bindparam("now"), Assignment.person_id != bindparam("person")
)
FIRST, SECOND = aliased(Response), aliased(Response)
TEXTS = (
    select(
        Prompt.messages,
        Prompt.category,
        Prompt.language,
        (Pair.purpose == "practice").label("practice"),
        (
            select(func.count() + 1)
            .where(Judgement.assignment_id == bindparam("assignment"))
            .scalar_subquery()
            .label("attempt")
        ),
        select(func.max(Guidelines.version)).scalar_subquery().label("guidelines"),
        FIRST.text.label("first"),
        SECOND.text.label("second"),
    )
    .select_from(Pair)
    .join(Prompt, Prompt.id == Pair.prompt_id)
    .join(FIRST, FIRST.id == Pair.first_id)
    .join(SECOND, SECOND.id == Pair.second_id)
    .where(Pair.id == bindparam("pair"))
)
PROGRESS = select(
    select(func.count())
    .where(Assignment.person_id == bindparam("person"), Assignment.fate == "answered")
    .scalar_subquery(),
    select(func.count())
    .where(Person.role != "administrator", Person.state.in_(("practising", "active")))
    .scalar_subquery(),
    select(func.max(Pair.id)).scalar_subquery(),  # none is ever deleted: it is how many there are
)


def next_assignment(
    db: Session, person: Person, config: CollectionConfig, now: float
) -> Shown | None:
    """The pair that the person judges next; the same one until it is judged or its lease is over.

    None if there is nothing for now; `person.state` says why: "paused", "failed" (the practice
    round), or "active": all is judged or with others. Administrators judge nothing. Call it in
    `writing`.
    """
    handing_out(db)
    person = locked(db, person)
    if person.role == "administrator" or person.state in ("paused", "failed"):
        return None
    _return(db, db.scalars(EXPIRED, {"now": now, "person": person.id}).all())
    assignment = db.scalars(OPEN, {"person": person.id}).first() or draw_next(
        db, person, config, now
    )
    if assignment is None:
        return None
    assignment.leased_until = now + 60 * config.lease_minutes
    return _shown(db, person, assignment, config)


def reassign(db: Session, person: Person, by: Person, config: CollectionConfig, now: float) -> int:
    """Gives the labels that the person has open to others at once; how many."""
    handing_out(db)
    person = locked(db, person)
    returned = db.scalars(HELD.where(Assignment.person_id == person.id)).all()
    _return(db, returned)
    for assignment in returned:
        assignment.leased_until = now + 60 * config.lease_minutes
    about = {"pairs": len(returned)}
    db.add(Change(kind="reassigned", person_id=person.id, by_id=by.id, about=about, created=now))
    return len(returned)


def held(db: Session) -> dict[int, int]:
    """How many labels of each person `reassign` would give to others."""
    found = select(Assignment.person_id, func.count()).join(Pair).where(*IS_HELD)
    return dict(db.execute(found.group_by(Assignment.person_id)).all())


def _return(db: Session, held: Sequence[Assignment]) -> None:
    """Takes back what was not judged."""
    for assignment in held:
        assignment.fate = "returned"
    recount(db, [assignment.pair_id for assignment in held])


def _shown(db: Session, person: Person, assignment: Assignment, config: CollectionConfig) -> Shown:
    of_pair = {"assignment": assignment.id, "pair": assignment.pair_id}
    shown = db.execute(TEXTS, of_pair).one()._asdict()
    texts = shown.pop("first"), shown.pop("second")
    left, right = reversed(texts) if assignment.swapped else texts
    done, total = _progress(db, person, config)
    return Shown(
        assignment_id=assignment.id, left=left, right=right, done=done, total=total, **shown
    )


def _progress(db: Session, person: Person, config: CollectionConfig) -> tuple[int, int]:
    """What the person has done, of about how much.

    Gold and repeats count like labels: a bar that stood still would give them away.
    """
    if person.state == "practising":
        practice = practice_round(db, person, config)
        return practice.judged, practice.total
    done, people_now, pairs = db.execute(PROGRESS, {"person": person.id}).one()
    each = (1 + config.overlap * (config.annotators - 1)) / people_now
    labels = pairs * min(each, 1.0)
    return done, max(done + 1, round(labels * (1 + config.gold + config.repeats)))
