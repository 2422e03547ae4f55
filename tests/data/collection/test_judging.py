"""What may be judged, undone and invalidated, and what counts then."""

import pytest
from sqlalchemy import func, select

from glm_jax.data.collection import Refused
from glm_jax.data.collection.labelling.answers import Answer
from glm_jax.data.collection.labelling.judging import (
    UNDOS,
    counted,
    invalidate,
    judge,
    restore,
    undo,
)
from glm_jax.data.collection.people import pause
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import reading, writing
from glm_jax.data.collection.tables import Assignment, Judgement, Pair
from tests.data.collection.conftest import LEASE, PLAIN, ask


def say(engine, person, shown, config=PLAIN, now=0.0, **said):
    fields = {"side": "left", "strength": 2, "attempt": shown.attempt, "guidelines": 1} | said
    with writing(engine) as db:
        answer = Answer(assignment_id=shown.assignment_id, **fields)
        return judge(db, person, answer, config, now)


def take_back(engine, person, now=0.0, named=None):
    with writing(engine) as db:
        return undo(db, person, now, named)


def counts(engine):
    with reading(engine) as db:
        return len(db.scalars(counted()).all())


def everything(engine):
    with reading(engine) as db:
        return db.scalar(select(func.count()).select_from(Judgement))


def test_verdicts_are_kept_in_first_and_second(engine, fill):
    ann = fill(PLAIN, prompts=12, annotators=1)["annotator-1"]
    swaps = set()
    while (shown := ask(engine, ann)) is not None:
        criteria = {"fluency": "right", "helpfulness": "tie"}
        found = say(
            engine, ann, shown, now=9.0, criteria=criteria, milliseconds=1234, comment=" hm ",
            flags=("unanswerable", "unclear_intention"),
        )  # fmt: skip
        with reading(engine) as db:
            assignment = db.get_one(Assignment, shown.assignment_id)
        better, worse = ("second", "first") if assignment.swapped else ("first", "second")
        assert (found.verdict, found.strength, found.attempt) == (better, 2, 1)
        assert found.criteria == {"helpfulness": "tie", "fluency": worse}
        assert found.flags == ["unclear_intention", "unanswerable"] and found.comment == "hm"
        assert (found.milliseconds, found.guidelines, found.created) == (1234, 1, 9.0)
        swaps.add(assignment.swapped)
    assert swaps == {True, False}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"side": "first"}, "which answer is better"),
        ({"strength": None}, "slightly"),
        ({"strength": 3}, "slightly"),
        ({"milliseconds": -1}, "time"),
        ({"milliseconds": 2**40}, "time"),
        ({"flags": ("clear",)}, "flag"),
        ({"comment": "x" * 4001}, "longer"),
        ({"comment": "a\0b"}, "kept"),
        ({"criteria": {"beauty": "left"}}, "beauty"),
        ({"criteria": {"fluency": "first"}}, "fluency"),
        ({"attempt": 2}, "old"),
        ({"attempt": 0}, "old"),
        ({"guidelines": 0}, "version"),
        ({"guidelines": 2}, "version"),
    ],
)
def test_wrong_values_change_nothing(engine, fill, wrong, message):
    ann = fill(PLAIN, prompts=1)["annotator-1"]
    shown = ask(engine, ann)
    with pytest.raises(Refused, match=message):
        say(engine, ann, shown, **wrong)
    assert everything(engine) == 0 and ask(engine, ann) == shown


@pytest.mark.parametrize("asked", ["no", "required"])
def test_criteria_as_configured(engine, fill, asked):
    config = CollectionConfig(practice=0, criteria=asked)
    ann = fill(config, prompts=1)["annotator-1"]
    shown = ask(engine, ann, config)
    every = dict.fromkeys(("helpfulness", "harmlessness", "fluency"), "tie")
    good, bad = (every, {"fluency": "tie"}) if asked == "required" else ({}, every)
    with pytest.raises(Refused):
        say(engine, ann, shown, config, criteria=bad)
    say(engine, ann, shown, config, criteria=good)


def test_the_same_answer_counts_once(either, fill):
    people = fill(PLAIN, either, prompts=2)
    ann, bob = people["annotator-1"], people["annotator-2"]
    shown = ask(either, ann)
    with pytest.raises(Refused, match="not given to you"):
        say(either, bob, shown)
    first = say(either, ann, shown)
    assert say(either, ann, shown, now=5.0).id == first.id
    with pytest.raises(Refused, match="already"):
        say(either, ann, shown, side="right")
    assert take_back(either, ann) == shown.assignment_id and counts(either) == 0
    with pytest.raises(Refused, match="old"):
        say(either, ann, shown)
    again = ask(either, ann)
    assert again.assignment_id == shown.assignment_id and again.attempt == 2
    assert say(either, ann, again, side="right").id != first.id
    with pytest.raises(Refused, match="already"):
        say(either, ann, shown)
    assert counts(either) == 1 and everything(either) == 2
    with writing(either) as db:
        pause(db, ann, None, 0.0)
    assert say(either, ann, again, side="right").attempt == 2
    with pytest.raises(Refused):
        take_back(either, ann)


def test_a_lease_that_is_over(engine, fill):
    people = fill(PLAIN, prompts=2)
    ann, bob = people["annotator-1"], people["annotator-2"]
    shown = ask(engine, ann)
    given_away = ask(engine, bob, now=LEASE + 1)
    assert given_away.messages == shown.messages
    with pytest.raises(Refused, match="someone else"):
        say(engine, ann, shown, now=LEASE + 1)
    say(engine, bob, given_away, now=LEASE + 1)
    late = ask(engine, ann, now=LEASE + 1)
    assert ask(engine, bob, now=3 * LEASE).messages == late.messages
    say(engine, bob, ask(engine, bob, now=3 * LEASE), side="unwilling", now=3 * LEASE)
    say(engine, ann, late, now=3 * LEASE)
    with pytest.raises(Refused, match="someone else"):
        take_back(engine, bob, 3 * LEASE)


def test_ten_can_be_undone_in_turn(engine, fill):
    ann = fill(PLAIN, prompts=15)["annotator-1"]
    judged = []
    for _ in range(12):
        judged.append(ask(engine, ann).assignment_id)
        say(engine, ann, ask(engine, ann))
    waiting = ask(engine, ann).assignment_id
    undone = [take_back(engine, ann) for _ in range(UNDOS)]
    assert undone == judged[:1:-1] and take_back(engine, ann) is None and counts(engine) == 2
    for expected in [*judged[2:], waiting]:
        shown = ask(engine, ann)
        assert shown.assignment_id == expected
        say(engine, ann, shown, side="tie")
    assert counts(engine) == 13 and everything(engine) == 23
    assert take_back(engine, ann) == waiting


def test_an_undo_whose_reply_was_lost(either, fill):
    """Asked for again by name it undoes nothing more, nor what was judged since."""
    people = fill(PLAIN, either, prompts=15)
    ann, bob = people["annotator-1"], people["annotator-2"]
    judged = []
    for _ in range(UNDOS + 1):
        shown = ask(either, ann)
        say(either, ann, shown)
        judged.append((shown.assignment_id, 1))
    with pytest.raises(Refused, match="not what you judged last"):
        take_back(either, ann, named=judged[-2])
    for named in judged[:0:-1]:
        for _ in range(2):
            assert take_back(either, ann, named=named) == named[0]
    assert counts(either) == 1
    with writing(either) as db:
        pause(db, ann, None, 0.0)
    assert take_back(either, ann, named=judged[1]) == judged[1][0]
    for stranger, named in ((bob, judged[1]), (ann, judged[0]), (ann, (judged[1][0], 2))):
        with pytest.raises(Refused):
            take_back(either, stranger, named=named)
    assert counts(either) == 1


def test_invalidated_labels_are_made_again_and_restored_ones_count(engine, fill):
    config = CollectionConfig(overlap=1, annotators=2, gold=0, repeats=0, practice=0)
    people = fill(config, prompts=4, annotators=3)
    ann, bob, eve = (people[f"annotator-{i}"] for i in (1, 2, 3))
    for person in (ann, bob):
        while (shown := ask(engine, person, config)) is not None:
            say(engine, person, shown, config, side="tie")
    assert ask(engine, eve, config) is None and counts(engine) == 8
    for _ in range(2):
        with writing(engine) as db:
            invalidate(db, bob, people["admin"], "too fast", 0.0)
    assert counts(engine) == 4
    while (shown := ask(engine, eve, config)) is not None:
        say(engine, eve, shown, config, side="tie")
    assert counts(engine) == 8
    with writing(engine) as db:
        restore(db, bob, people["admin"], "was fine", 0.0)
    assert counts(engine) == 12 and everything(engine) == 12
    with reading(engine) as db:
        assert set(db.scalars(select(Pair.missing))) == {0}


def test_who_was_restored_is_no_decision(engine, fill):
    """Two say one thing, two others, who replace them, another: a senior decides, once."""
    config = CollectionConfig(overlap=1, annotators=2, gold=0, repeats=0, practice=0)
    people = fill(config, prompts=1, annotators=4, seniors=1)
    for names, side in (
        (("annotator-1", "annotator-2"), "tie"),
        (("annotator-3", "annotator-4"), "cannot_judge"),
    ):
        for name in names:
            say(engine, people[name], ask(engine, people[name], config), config, side=side)
        if side == "tie":
            with writing(engine) as db:
                for name in names:
                    invalidate(db, people[name], people["admin"], "too fast", 0.0)
    with writing(engine) as db:
        for name in ("annotator-1", "annotator-2"):
            restore(db, people[name], people["admin"], "was fine", 0.0)
        assert db.scalars(select(Pair)).one().queue == "senior"
    decision = say(engine, people["senior-1"], ask(engine, people["senior-1"], config), config)
    with reading(engine) as db:
        pair = db.scalars(select(Pair)).one()
        assert (pair.queue, pair.missing, pair.decision) == (None, 0, decision.id)


def test_practice_does_not_count(engine, fill):
    config = CollectionConfig(gold=1, repeats=0, practice=1, pass_mark=0)
    ann = fill(config, prompts=1, gold=1, practice=1)["annotator-1"]
    for _ in range(3):
        say(engine, ann, ask(engine, ann, config), config)
    with reading(engine) as db:
        purposes = db.scalars(counted().with_only_columns(Pair.purpose)).all()
    assert sorted(purposes) == ["gold", "label"] and everything(engine) == 3
