"""The figures of a collection, as plain dictionaries: how far it is, and what its labels are worth.

A share comes as {"share", "ci95", "n"}: of n, with Wilson's interval. What does not count (undone,
practice, of people whose labels were declared invalid) is nowhere in it.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, get_args

import numpy as np
from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from glm_jax.data.collection.figures import bias, judged, reliability
from glm_jax.data.collection.figures.contradictions import contradictions
from glm_jax.data.collection.figures.judged import FIRST, TIE, VERDICTS, Judged
from glm_jax.data.collection.figures.shares import Measured, measured, share
from glm_jax.data.collection.tables import Assignment, Pair, Person, Verdict

DAYS = 30  # that throughput is told of
BARS = 24  # of the histogram of seconds
HOUR, DAY = 3600, 86400


def statistics(db: Session, now: float) -> dict[str, Any]:
    """Everything that the administrator's page and `glm-rlhf collect statistics` show."""
    found = judged.read(db)
    labels = found.labels()
    votes, gold = labels.votes(), found.gold().votes()
    verdicts = Counter(labels.verdict_N.tolist())
    longer, buckets = bias.longer(found)
    shares = {
        "ties": measured(votes.verdict_N == TIE, votes),
        "unable": measured(labels.verdict_N > FIRST, labels),
        "gold": measured(gold.verdict_N == gold.right_N, gold),
        "repeats": reliability.repeats(found),
        "left": bias.left(found),
        "longer": longer,
    }
    return {
        "time": now,
        "progress": progress(db, now),
        "throughput": throughput(found, now),
        "seconds": seconds(found.seconds_N),
        "verdicts": {name: verdicts[VERDICTS.index(name)] for name in get_args(Verdict)},
        "agreement": {"alpha": reliability.alpha(found), "kappas": reliability.kappas(found)},
        **{name: values.of_all for name, values in shares.items()},
        "buckets": buckets,
        "cycles": contradictions(db, found),
        "annotators": annotators(db, found, shares, now),
    }


def progress(db: Session, now: float) -> dict[str, Any]:
    """How many of the pairs to label are judged by all who were wanted, and what is still missing.

    `missing`: judgements that nobody has begun; `senior`: pairs that wait for a senior; `stuck`:
    those of them that no senior who is here may judge; `open`: pairs that someone has before him.
    """
    label = Pair.purpose == "label"
    begun = select(Assignment.pair_id).where(Assignment.fate == "open", ~Assignment.repeat)
    done = label & (Pair.missing == 0) & Pair.id.not_in(begun)
    waits = Pair.queue == "senior"
    pairs, complete, missing, senior, stuck = db.execute(
        select(
            func.count().filter(label),
            func.count().filter(done),
            func.coalesce(func.sum(Pair.missing).filter(label), 0),
            func.count().filter(waits),
            func.count().filter(waits & ~_someone_may_decide()),
        ).select_from(Pair)
    ).one()
    return {
        "pairs": pairs,
        "done": complete,
        "missing": int(missing),
        "senior": senior,
        "stuck": stuck,
        "open": sum(_held(db, now).values()),
    }


def throughput(found: Judged, now: float) -> dict[str, Any]:
    """Judgements of every kind, in all, lately, and on each of the last days (UTC)."""
    age_N = now - found.created_N
    today = day(now)
    began = day(found.created_N.min()) if len(found) else today
    days = min(DAYS, (today - began).days + 1)
    by_day = Counter(map(day, found.created_N.tolist()))
    shown = [today - timedelta(days=ago) for ago in reversed(range(days))]
    return {
        "all": len(found),
        "last_hour": int((age_N < HOUR).sum()),
        "last_day": int((age_N < DAY).sum()),
        "people_last_hour": len(set(found.person_N[age_N < HOUR].tolist())),
        "days": [{"day": at.isoformat(), "judgements": by_day[at]} for at in shown],
    }


def seconds(seconds_N: np.ndarray) -> dict[str, Any]:
    """Quartiles of the visible, active time a pair, and its sum; a histogram of all but the
    slowest in a hundred."""
    seconds_N = seconds_N[~np.isnan(seconds_N)]
    if not len(seconds_N):
        return {"quartiles": None, "hours": 0.0, "n": 0, "histogram": None}
    *quartiles, last = np.quantile(seconds_N, (0.25, 0.5, 0.75, 0.99)).tolist()
    counts, edges = np.histogram(seconds_N, BARS, (0, max(last, 1)))
    return {
        "quartiles": quartiles,
        "hours": float(seconds_N.sum()) / HOUR,
        "n": len(seconds_N),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def annotators(
    db: Session, found: Judged, shares: Mapping[str, Measured], now: float
) -> list[dict[str, Any]]:
    """The same figures of each person who judges, by name; also of those who have not begun."""
    number = {name: i for i, name in enumerate(found.names)}
    nothing = share(np.zeros(0, bool))
    held = _held(db, now)
    told = []
    for person in db.scalars(select(Person).order_by(Person.name)):
        at = number.get(person.name)
        if at is None and person.role == "administrator":
            continue
        mine = found.take(found.person_N == at)
        told.append(
            {
                "name": person.name,
                "judged": len(mine),
                "last_day": int((now - mine.created_N < DAY).sum()),
                "last": float(mine.created_N.max()) if len(mine) else None,
                "open": held.get(person.id, 0),
                "seconds": seconds(mine.seconds_N),
                **{
                    name: nothing if at is None else values.of_each[at]
                    for name, values in shares.items()
                },
            }
        )
    return told


def day(created: float) -> date:
    """The day, UTC, of a time in seconds since 1970."""
    return datetime.fromtimestamp(created, UTC).date()


def _someone_may_decide() -> ColumnElement[bool]:
    """Whether a senior who is here has not had the pair."""
    had = exists().where(
        Assignment.pair_id == Pair.id,
        Assignment.person_id == Person.id,
        Assignment.fate != "returned",
    )
    here = Person.state.in_(("practising", "active"))
    return exists().where(Person.role == "senior", here, ~had).correlate(Pair)


def _held(db: Session, now: float) -> dict[int, int]:
    """How many pairs each person has open at present."""
    held = (
        select(Assignment.person_id, func.count())
        .where(Assignment.fate == "open", Assignment.leased_until > now)
        .group_by(Assignment.person_id)
    )
    return dict(db.execute(held).all())
