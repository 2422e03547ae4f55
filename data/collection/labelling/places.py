"""How many annotators a pair is still missing, and which queue it therefore waits in.

An assignment of a label (not a repeat) holds a place while it is open, and once it is answered;
not if the answer is "unwilling" (someone else may be willing), or its person is invalidated. When
as many as are wanted have answered, one verdict needs more than half of all answers, those who
could not judge included. Otherwise the vote of a senior decides who is among them, the first one's
if there are several; without one there is one place more, for a senior. While that is held nobody
else gets the pair, whatever becomes of the other places.

Queues: "practice" and "gold" wait for everybody; in "new" a pair is until its places are taken;
one that lost a holder is "back", and goes first; "senior" ones wait for a senior.
"""

from collections import Counter, defaultdict
from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, func, or_, select
from sqlalchemy.orm import Session

from glm_jax.data.collection.tables import Assignment, Judgement, Pair, Person, Retraction

VOTES = ("first", "second", "tie")
AT_ONCE = 500  # pairs in one statement


class Place(NamedTuple):
    """A place of a pair that someone holds; without a judgement it is still open."""

    pair_id: int
    to_decide: bool
    judgement: int | None
    verdict: str | None
    by_senior: bool


def undone() -> ColumnElement[bool]:
    """Whether a judgement was taken back by its person."""
    return exists().where(Retraction.judgement_id == Judgement.id)


def decides() -> ColumnElement[bool]:
    """Whether a judgement is what settles its pair."""
    return func.coalesce(Pair.decision == Judgement.id, False)


def invalidated() -> Select[tuple[int]]:
    """The people none of whose judgements counts at present."""
    last = (
        select(func.max(Retraction.id))
        .where(Retraction.judgement_id.is_(None))
        .group_by(Retraction.person_id)
    )
    return select(Retraction.person_id).where(
        Retraction.id.in_(last), Retraction.kind == "invalidated"
    )


LABELS = (
    select(Pair)
    .where(Pair.id.in_(bindparam("pairs", expanding=True)), Pair.purpose == "label")
    .order_by(Pair.id)
    .with_for_update(key_share=True)
    .execution_options(populate_existing=True)
)
HOLDING = (  # the places that are held, in the order of their judgements
    select(
        Assignment.pair_id,
        Assignment.to_decide,
        Judgement.id,
        Judgement.verdict,
        Person.role == "senior",
    )
    .join(Person, Person.id == Assignment.person_id)
    .outerjoin(Judgement, and_(Judgement.assignment_id == Assignment.id, ~undone()))
    .where(
        Assignment.pair_id.in_(bindparam("pairs", expanding=True)),
        ~Assignment.repeat,
        or_(
            Assignment.fate == "open",
            and_(
                Assignment.fate == "answered",
                Judgement.verdict != "unwilling",
                Assignment.person_id.not_in(invalidated()),
            ),
        ),
    )
    .order_by(Judgement.id)
)


def recount(db: Session, pair_ids: Collection[int]) -> None:
    """Sets `missing`, `queue` and `decision` of these pairs by what holds their places now."""
    ids = sorted(set(pair_ids))
    for begin in range(0, len(ids), AT_ONCE):
        some = ids[begin : begin + AT_ONCE]
        pairs = db.scalars(LABELS, {"pairs": some}).all()
        held = defaultdict(list)
        for place in map(Place._make, db.execute(HOLDING, {"pairs": some})):
            held[place.pair_id].append(place)
        for pair in pairs:
            _settle(pair, held[pair.id])


def _settle(pair: Pair, held: list[Place]) -> None:
    votes = [place for place in held if not place.to_decide]
    deciders = [place for place in held if place.to_decide]
    missing = max(pair.wanted - len(votes), 0)
    queue = "new" if pair.queue == "new" and missing <= pair.missing else "back"
    if not missing and not deciders and _are_divided(votes):
        missing, queue = 1, "senior"
        deciders = [place for place in votes if place.by_senior and place.verdict in VOTES]
    decisions = [place.judgement for place in deciders if place.judgement is not None]
    pair.decision = decisions[0] if decisions else None
    pair.missing = 0 if deciders else missing
    pair.queue = queue if pair.missing else None


def _are_divided(votes: list[Place]) -> bool:
    """Whether everybody has answered, and no verdict has more than half of them."""
    counts = Counter(place.verdict for place in votes)
    most = max((counts[verdict] for verdict in VOTES), default=0)
    return None not in counts and 2 * most <= len(votes)
