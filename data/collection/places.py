"""How many annotators a pair is still missing, and which queue it therefore waits in.

An assignment of a label (not a repeat) holds a place while it is open, and once it is answered;
not if the answer is "unwilling" (someone else may be willing), or its person is invalidated. When
all places are held and answered, one verdict needs more than half of them, those who could not
judge included; otherwise there is one place more, for a senior, who decides.

Queues: "practice" and "gold" wait for everybody; in "new" a pair is until its places are taken;
one that lost a holder is "back", and goes first; "senior" ones wait for a senior.
"""

from collections import Counter, defaultdict
from collections.abc import Collection

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from glm_jax.data.collection.tables import Assignment, Judgement, Pair, Retraction

VOTES = ("first", "second", "tie")
AT_ONCE = 500


def recount(db: Session, pair_ids: Collection[int]) -> None:
    """Sets `missing`, `senior` and `queue` of these pairs by what holds their places now."""
    ids = sorted(set(pair_ids))
    for begin in range(0, len(ids), AT_ONCE):
        some = ids[begin : begin + AT_ONCE]
        pairs = db.scalars(
            select(Pair)
            .where(Pair.id.in_(some), Pair.purpose == "label")
            .order_by(Pair.id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        ).all()
        held = defaultdict(list)
        for pair_id, verdict in db.execute(_holding(some)):
            held[pair_id].append(verdict)
        for pair in pairs:
            _settle(pair, held[pair.id])


def undone() -> ColumnElement[bool]:
    """Whether a judgement was taken back by its person."""
    return exists().where(Retraction.judgement_id == Judgement.id)


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


def _holding(pair_ids: list[int]) -> Select[tuple[int, str | None]]:
    """A row for each place held: the pair, and the verdict, or None if it is still open."""
    answered = and_(
        Assignment.fate == "answered",
        Judgement.verdict != "unwilling",
        Assignment.person_id.not_in(invalidated()),
    )
    return (
        select(Assignment.pair_id, Judgement.verdict)
        .outerjoin(Judgement, and_(Judgement.assignment_id == Assignment.id, ~undone()))
        .where(
            Assignment.pair_id.in_(pair_ids),
            ~Assignment.repeat,
            or_(Assignment.fate == "open", answered),
        )
    )


def _settle(pair: Pair, held: list[str | None]) -> None:
    counts = Counter(verdict for verdict in held if verdict in VOTES)
    is_settled = None in held or 2 * max(counts.values(), default=0) > len(held)
    # More holders than were wanted: one is the senior, unless someone was restored.
    decided = len(held) > pair.wanted
    before = pair.missing if pair.queue == "new" else 0
    pair.senior = decided or (len(held) == pair.wanted and not is_settled)
    pair.missing = int(not decided) if pair.senior else pair.wanted - len(held)
    if not pair.missing:
        pair.queue = None
    elif pair.senior:
        pair.queue = "senior"
    elif pair.queue != "new" or pair.missing > before:
        pair.queue = "back"
