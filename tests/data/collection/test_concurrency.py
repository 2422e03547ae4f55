"""Many people at once, with all they may do in any order, and what must hold in the end."""

import threading
from collections import Counter, defaultdict
from random import Random

from sqlalchemy import Engine, select

from glm_jax.data.collection import Refused, people
from glm_jax.data.collection.labelling.answers import Answer
from glm_jax.data.collection.labelling.assignment import next_assignment, reassign
from glm_jax.data.collection.labelling.judging import (
    counted,
    invalidate,
    judge,
    restore,
    undo,
)
from glm_jax.data.collection.labelling.places import recount
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import writing
from glm_jax.data.collection.tables import Assignment, Judgement, Pair, Person, Retraction

CONFIG = CollectionConfig(
    overlap=0.5, annotators=3, gold=0.1, repeats=0.1, repeat_distance=5, practice=0, lease_minutes=1
)
SIDES = ("left", "right", "tie", "cannot_judge", "unwilling")


class Clock:
    """Seconds that pass when something is done, now and then so many that leases end."""

    def __init__(self) -> None:
        self.now, self.lock = 0.0, threading.Lock()

    def tick(self, seconds: float) -> float:
        with self.lock:
            self.now += seconds
            return self.now


def one_of(engine: Engine, person: Person, clock: Clock, rng: Random, kept: dict) -> None:
    """Something that the page of an annotator can do, sensible or not."""
    now = clock.tick(90 if rng.random() < 0.02 else 0.1)
    with writing(engine, flushed=False) as db:
        shown = next_assignment(db, person, CONFIG, now)
    if shown is None or rng.random() < 0.1:  # left, without an answer
        return
    side = rng.choices(SIDES, (40, 30, 20, 5, 5))[0]
    answer = Answer(assignment_id=shown.assignment_id, side=side, strength=1, attempt=shown.attempt)
    for _ in range(rng.choice((1, 1, 2))):  # sent again, as after a lost reply
        with writing(engine) as db:
            judgement = judge(db, person, answer, CONFIG, clock.now)
        kept[judgement.id] = (shown.assignment_id, shown.attempt)
    if rng.random() < 0.1:
        with writing(engine) as db:
            undo(db, person, clock.now)


def act(engine: Engine, everybody: dict[str, Person], times: int, seed: int) -> tuple:
    """Lets threads act at once, one a person: what was acknowledged, and what went wrong."""
    clock, kept, wrong = Clock(), {}, []

    def live(person: Person) -> None:
        rng = Random(f"{seed}/{person.name}")
        for _ in range(times):
            try:
                one_of(engine, person, clock, rng, kept)
            except Refused:
                pass
            except Exception as error:
                wrong.append(error)
                raise

    def lead(person: Person) -> None:
        for name in ("annotator-1", "annotator-2"):
            for step in (invalidate, restore, invalidate):
                with writing(engine) as db:
                    step(db, everybody[name], person, "a try", clock.now)
            with writing(engine) as db:
                reassign(db, everybody[name], person, CONFIG, clock.now)
                people.pause(db, everybody[name], person, clock.now)
                people.resume(db, everybody[name], person, clock.now)

    threads = [
        threading.Thread(target=live, args=[p]) for n, p in everybody.items() if n != "admin"
    ]
    threads += [threading.Thread(target=lead, args=[everybody["admin"]])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return kept, wrong


def test_whatever_happens(either, fill):
    everybody = fill(CONFIG, either, prompts=30, gold=5, annotators=6, seniors=2)
    kept, wrong = act(either, everybody, 12, 3)
    assert not wrong
    with writing(either) as db:
        judgements = {j.id: j for j in db.scalars(select(Judgement))}
        assignments = {a.id: a for a in db.scalars(select(Assignment))}
        pairs = db.scalars(select(Pair).order_by(Pair.id)).all()
        undone = set(db.scalars(select(Retraction.judgement_id)))
        votes = db.execute(
            counted().with_only_columns(Assignment.person_id, Pair.id)
            .where(Pair.purpose == "label", ~Assignment.repeat, Judgement.verdict != "unwilling")
        ).all()  # fmt: skip

        # All that was acknowledged is there, once, on the assignment that was shown.
        assert len(kept) > 40 and kept.keys() <= judgements.keys()
        for name, (assignment, attempt) in kept.items():
            assert (judgements[name].assignment_id, judgements[name].attempt) == (
                assignment,
                attempt,
            )
        valid = Counter(j.assignment_id for j in judgements.values() if j.id not in undone)
        answered = {a.id for a in assignments.values() if a.fate == "answered"}
        assert valid == Counter(answered)

        # Nobody has a pair twice, but for repeats, which are far enough and swapped.
        mine = defaultdict(dict)
        for a in assignments.values():
            assert a.repeat not in mine[a.pair_id, a.person_id]
            mine[a.pair_id, a.person_id][a.repeat] = a
        for both in mine.values():
            if True in both:
                assert both[True].swapped is not both[False].swapped
                assert both[True].number > both[False].number + CONFIG.repeat_distance
        numbers = [(a.person_id, a.number) for a in assignments.values()]
        assert len(set(numbers)) == len(numbers)

        # Places are what their holders make them, and no pair is judged by more than it wants.
        before = [(p.missing, p.decision, p.queue) for p in pairs]
        recount(db, [p.id for p in pairs])
        assert [(p.missing, p.decision, p.queue) for p in pairs] == before
        of_pair = Counter(pair_id for _, pair_id in votes)
        assert len(set(votes)) == len(votes)
        restored = {everybody[f"annotator-{i}"].id for i in (1, 2)}
        for pair in pairs:
            more = sum(
                a.person_id in restored for a in assignments.values() if a.pair_id == pair.id
            )
            assert pair.purpose != "label" or of_pair[pair.id] <= pair.wanted + 1 + more
            assert pair.purpose == "label" or pair.queue == pair.purpose
