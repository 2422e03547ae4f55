"""Which pair a person sees next: gold, a repeat, or a label.

The person's n-th pair (n = 1, 2, 3, ...) is, by one uniform number that is the hash of
(seed, person, n):

- in the practice round: the next practice pair, until there were `config.practice`;
- below `gold`: the next gold pair that the person has not had;
- in the next `repeats` of the range: a label that the person has judged, at least
  `repeat_distance` pairs ago, with the sides swapped; which one is drawn from a second hash;
- else a label: for a senior the first pair without a majority; then for everybody the first one
  that came back from somebody; then the first new one in the order of `place`.

Where a gold pair or a repeat is due and there is none, it is a label. A third hash draws the sides.
So a server that starts again goes on as it would have gone on.
"""

import secrets
from collections.abc import Iterator

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from glm_jax.data.collection.places import VOTES, undone
from glm_jax.data.collection.practice import grade, practice_round
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import fresh
from glm_jax.data.collection.tables import Assignment, Judgement, Pair, Person, Queue
from glm_jax.data.records import draw

START = -1  # before every place


def draw_next(
    db: Session, person: Person, config: CollectionConfig, now: float
) -> Assignment | None:
    """The person's next pair by these rules, assigned; None if there is nothing for now."""
    number = 1 + (
        db.scalar(select(func.max(Assignment.number)).where(Assignment.person_id == person.id)) or 0
    )
    swapped = draw(config.seed, f"side:{person.id}:{number}") % 2 == 1
    if person.state == "practising":
        in_practice = practice_round(db, person, config)
        pair = None
        if in_practice.judged < in_practice.total:
            pair = _first(db, person, "practice")
        if pair is not None:
            return _assigned(db, person, pair, number, swapped, now)
        grade(db, person, config)
    if person.state != "active":
        return None
    chance = draw(config.seed, f"{person.id}:{number}") / 2**64
    if config.gold <= chance < config.gold + config.repeats:
        original = _to_repeat(db, person, config, number)
        if original is not None:
            pair, swapped = db.get_one(Pair, original.pair_id), not original.swapped
            return _assigned(db, person, pair, number, swapped, now, repeat=True)
    for queue in _queues(person, is_gold=chance < config.gold):
        pair = _first(db, person, queue)
        if pair is not None:
            return _assigned(db, person, pair, number, swapped, now)
    return None


def _queues(person: Person, *, is_gold: bool) -> Iterator[Queue]:
    if is_gold:
        yield "gold"
    if person.role == "senior":
        yield "senior"
    yield "back"
    yield "new"


def _first(db: Session, person: Person, queue: Queue) -> Pair | None:
    """The first pair in a queue that the person has not had; None if there is none.

    Of the long queues the part that the person has come through is not looked at again.
    """
    reached = {"new": person.reached, "gold": person.reached_gold}.get(queue, START)
    had = exists().where(
        Assignment.pair_id == Pair.id,
        Assignment.person_id == person.id,
        Assignment.fate != "returned",
    )
    first = (
        select(Pair.id)
        .where(Pair.queue == queue, Pair.place > reached, ~had)
        .order_by(Pair.place)
        .limit(1)
    )
    while (pair_id := db.scalar(first)) is not None:
        pair = fresh(db, Pair, pair_id)
        if pair.queue == queue:  # still, after waiting for whoever had it
            break
    else:
        return None
    if queue == "new":
        person.reached = pair.place
    if queue == "gold":
        person.reached_gold = pair.place
    return pair


def _to_repeat(
    db: Session, person: Person, config: CollectionConfig, number: int
) -> Assignment | None:
    """A label that the person has judged, `repeat_distance` pairs ago or more, and only once."""
    last = number - config.repeat_distance - 1
    if last < 1:
        return None
    start = 1 + draw(config.seed, f"repeat:{person.id}:{number}") % last
    again = aliased(Assignment)
    judged = (
        select(Assignment)
        .join(Pair)
        .join(Judgement)
        .where(
            Assignment.person_id == person.id,
            Assignment.fate == "answered",
            ~Assignment.repeat,
            Pair.purpose == "label",
            Judgement.verdict.in_(VOTES),
            ~undone(),
            ~exists().where(
                again.pair_id == Assignment.pair_id, again.person_id == person.id, again.repeat
            ),
        )
        .order_by(Assignment.number)
        .limit(1)
    )
    for begin, end in ((start, last), (1, start - 1)):
        found = db.scalars(judged.where(Assignment.number.between(begin, end))).first()
        if found is not None:
            return found
    return None


def _assigned(
    db: Session,
    person: Person,
    pair: Pair,
    number: int,
    swapped: bool,
    now: float,
    *,
    repeat: bool = False,
) -> Assignment:
    """Takes a place of the pair; what the person once gave back is the same assignment again."""
    if pair.purpose == "label" and not repeat:
        pair.missing -= 1
        pair.queue = pair.queue if pair.missing else None
    assignment = db.scalars(
        select(Assignment).where(
            Assignment.pair_id == pair.id,
            Assignment.person_id == person.id,
            Assignment.repeat == repeat,
        )
    ).first()
    if assignment is None:
        assignment = Assignment(
            id=secrets.token_urlsafe(16),
            pair_id=pair.id,
            person_id=person.id,
            swapped=swapped,
            repeat=repeat,
            leased_until=now,
            created=now,
        )
        db.add(assignment)
    assignment.number, assignment.fate = number, "open"
    return assignment
