"""Which pair a person sees next: gold, a repeat, or a label.

The person's n-th pair (n = 1, 2, 3, ...) is, by one uniform number that is the hash of
(seed, secret of the database, person, n), which nobody outside can work out:

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

from sqlalchemy import bindparam, exists, func, select
from sqlalchemy.orm import Session, aliased

from glm_jax.data.collection.labelling.places import VOTES, undone
from glm_jax.data.collection.labelling.practice import practice_round
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.tables import Assignment, Judgement, Pair, Person, Queue, Secret
from glm_jax.data.records import draw

SO_FAR = select(
    select(func.max(Assignment.number))
    .where(Assignment.person_id == bindparam("person"))
    .scalar_subquery(),
    select(Secret.text).where(Secret.id == 1).scalar_subquery(),
)
WAITING = (  # pairs that the person has not had, or has given back
    select(Pair, Assignment)
    .outerjoin(
        Assignment,
        (Assignment.pair_id == Pair.id)
        & (Assignment.person_id == bindparam("person"))
        & ~Assignment.repeat,
    )
    .where(
        Pair.queue == bindparam("queue"),
        Assignment.id.is_(None)
        | ((Assignment.fate == "returned") & (Assignment.leased_until <= bindparam("now"))),
    )
    .order_by(Pair.place)
    .limit(1)
    .with_for_update(of=Pair, key_share=True)
    .execution_options(populate_existing=True)
)
NEW = WAITING.where(Pair.place > bindparam("reached"))


def draw_next(
    db: Session, person: Person, config: CollectionConfig, now: float
) -> Assignment | None:
    """The person's next pair by these rules, assigned; None if there is nothing for now."""
    last, secret = db.execute(SO_FAR, {"person": person.id}).one()
    number, secret = 1 + (last or 0), secret or _new_secret(db)

    def drawn(what: str) -> int:
        """A uniform 64-bit number."""
        return draw(config.seed, f"{secret}:{what}:{person.id}:{number}")

    swapped = drawn("side") % 2 == 1
    if person.state == "practising":
        in_practice = practice_round(db, person, config)
        if not in_practice.is_over():
            return _first(db, person, "practice", number, swapped, now)
        person.state = "active" if in_practice.is_passed(config.pass_mark) else "failed"
        if person.state == "failed":
            return None
    chance = drawn("kind") / 2**64
    if config.gold <= chance < config.gold + config.repeats:
        before = _to_repeat(db, person, config, number, drawn("repeat"))
        if before is not None:
            swapped = not before.swapped
            return _assigned(db, person, before.pair_id, number, swapped, now, repeat=True)
    for queue in _queues(person, is_gold=chance < config.gold):
        assignment = _first(db, person, queue, number, swapped, now)
        if assignment is not None:
            return assignment
    return None


def _queues(person: Person, *, is_gold: bool) -> Iterator[Queue]:
    if is_gold:
        yield "gold"
    if person.role == "senior":
        yield "senior"
    yield "back"
    yield "new"


def _first(
    db: Session, person: Person, queue: Queue, number: int, swapped: bool, now: float
) -> Assignment | None:
    """Assigns the first pair in a queue that the person has not had; None if there is none."""
    asked = {"person": person.id, "queue": queue, "now": now}
    if queue == "new":  # the long one: what the person has come through is not looked at again
        found = db.execute(NEW, asked | {"reached": person.reached}).first()
    else:
        found = db.execute(WAITING, asked).first()
    if found is None:
        return None
    pair, assignment = found
    if queue == "new":
        person.reached = pair.place
    if pair.purpose == "label":
        pair.missing -= 1
        pair.queue = queue if pair.missing else None
    if assignment is None:
        assignment = _assigned(db, person, pair.id, number, swapped, now)
    else:  # it was given back, and is the same assignment again
        assignment.number, assignment.fate = number, "open"
    assignment.to_decide = queue == "senior"
    return assignment


def _to_repeat(
    db: Session, person: Person, config: CollectionConfig, number: int, chance: int
) -> Assignment | None:
    """A label that the person has judged, `repeat_distance` pairs ago or more, and only once.

    That is by number, and by time, too: what was undone and judged again was just seen.
    """
    last = number - config.repeat_distance - 1
    if last < 1:
        return None
    of_person = select(Judgement.id).join(Assignment).where(Assignment.person_id == person.id)
    recent = of_person.where(~undone()).order_by(Judgement.id.desc())
    since = db.scalars(recent.limit(config.repeat_distance)).all()
    if len(since) < config.repeat_distance:
        return None
    start = 1 + chance % last
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
            Judgement.id < since[-1],
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


def _new_secret(db: Session) -> str:
    secret = Secret(id=1, text=secrets.token_urlsafe(32))
    db.add(secret)
    return secret.text


def _assigned(
    db: Session,
    person: Person,
    pair_id: int,
    number: int,
    swapped: bool,
    now: float,
    *,
    repeat: bool = False,
) -> Assignment:
    assignment = Assignment(
        id=secrets.token_urlsafe(16),
        pair_id=pair_id,
        person_id=person.id,
        number=number,
        swapped=swapped,
        repeat=repeat,
        fate="open",
        leased_until=now,
        created=now,
    )
    db.add(assignment)
    return assignment
