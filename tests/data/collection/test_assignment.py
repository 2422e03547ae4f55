"""Who gets which pair: no pair twice, leases, gold and repeats in their places, seniors."""

from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest
from sqlalchemy import delete, func, select

from glm_jax.data.collection.labelling.answers import Answer
from glm_jax.data.collection.labelling.assignment import reassign
from glm_jax.data.collection.labelling.judging import judge, undo
from glm_jax.data.collection.people import invite, pause, resume
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import open_store, reading, writing
from glm_jax.data.collection.tables import Assignment, Pair, Person, Secret
from glm_jax.errors import InputError
from tests.data.collection.conftest import LEASE, PLAIN, ask


def say(engine, person, shown, side="left", config=PLAIN, now=0.0):
    answer = Answer(assignment_id=shown.assignment_id, side=side, strength=1, attempt=shown.attempt)
    with writing(engine) as db:
        return judge(db, person, answer, config, now)


def right(shown):
    return "left" if shown.left.startswith("Right") else "right"


def all_of(engine, person, config, answer=lambda shown: "left"):
    """Judges until there is nothing more: everything that was shown."""
    seen = []
    while (shown := ask(engine, person, config)) is not None:
        seen.append(shown)
        say(engine, person, shown, answer(shown), config)
    return seen


def state_of(engine, person):
    with reading(engine) as db:
        return db.get_one(Person, person.id).state


def test_each_pair_goes_to_one_person_and_comes_back_to_a_page(either, fill):
    people = fill(PLAIN, either, prompts=5)
    ann, bob = people["annotator-1"], people["annotator-2"]
    first = ask(either, ann)
    assert ask(either, ann, now=5.0) == first and first.attempt == 1 and not first.practice
    other = ask(either, bob)
    assert other.assignment_id != first.assignment_id and other.messages != first.messages
    assert first.left != first.right and first.category == "arithmetic"
    say(either, ann, first), say(either, bob, other)
    assert len(all_of(either, ann, PLAIN)) == 3
    assert ask(either, bob) is None and state_of(either, bob) == "active"
    assert ask(either, people["admin"]) is None


def test_a_lease_ends_only_if_someone_else_asks(engine, fill):
    people = fill(PLAIN, prompts=1, annotators=3)
    ann, bob, eve = (people[f"annotator-{i}"] for i in (1, 2, 3))
    held = ask(engine, ann)
    assert ask(engine, bob, now=LEASE) is None
    assert ask(engine, ann, now=LEASE + 1) == held
    assert ask(engine, bob, now=LEASE + 2) is None
    again = ask(engine, bob, now=2 * LEASE + 2)
    assert again.messages == held.messages and again.assignment_id != held.assignment_id
    assert ask(engine, ann, now=2 * LEASE + 2) is None
    assert ask(engine, eve, now=2 * LEASE + 2) is None
    back = ask(engine, ann, now=4 * LEASE)
    assert back == held
    with writing(engine) as db:
        assert reassign(db, ann, people["admin"], PLAIN, 4 * LEASE) == 1
    assert ask(engine, ann, now=5 * LEASE - 1) is None, "not whom it was just taken from"
    again = ask(engine, eve, now=5 * LEASE - 1)
    assert again.messages == held.messages
    with writing(engine) as db:
        assert reassign(db, eve, people["admin"], PLAIN, 5 * LEASE) == 1
    assert ask(engine, ann, now=5 * LEASE) == held, "nobody else wanted it"


def test_overlap_gives_a_pair_to_so_many_and_to_nobody_twice(engine, fill):
    config = CollectionConfig(overlap=1, annotators=2, gold=0, repeats=0, practice=0)
    people = fill(config, prompts=6, annotators=3)
    seen = {name: all_of(engine, people[name], config, lambda _: "tie")
            for name in ("annotator-1", "annotator-2", "annotator-3")}  # fmt: skip
    times = Counter(str(shown.messages) for shown in chain(*seen.values()))
    assert times == Counter(dict.fromkeys(times, 2)) and len(times) == 6
    assert [len(shown) for shown in seen.values()] == [6, 6, 0]


def test_practice_comes_first_and_is_graded(engine, fill):
    config = CollectionConfig(overlap=1, annotators=9, gold=0, practice=4, pass_mark=0.75)
    people = fill(config, prompts=3, practice=6, annotators=4)
    ann, bob, eve, late = (people[f"annotator-{i}"] for i in (1, 2, 3, 4))
    wrong_once = iter(["tie", *["right"] * 9])
    seen = all_of(engine, ann, config, lambda s: right(s) if next(wrong_once) == "right" else "tie")
    assert [s.practice for s in seen] == [True] * 4 + [False] * 3
    assert [(s.done, s.total) for s in seen[:4]] == [(i, 4) for i in range(4)]
    assert state_of(engine, ann) == "active"
    assert len(all_of(engine, bob, config, lambda s: "tie")) == 4
    assert state_of(engine, bob) == "failed"
    with writing(engine) as db:
        resume(db, bob, people["admin"], 0.0)
    assert len(all_of(engine, bob, config)) == 3
    ask(engine, late, config)
    with writing(engine) as db:
        pause(db, late, people["admin"], 0.0)
    assert ask(engine, late, config) is None and state_of(engine, late) == "paused"
    with writing(engine) as db:
        resume(db, late, people["admin"], 0.0)
    assert ask(engine, late, config).practice
    without = CollectionConfig(practice=0)
    assert not ask(engine, eve, without).practice and state_of(engine, eve) == "active"


def test_gold_and_repeats_come_in_their_shares(engine, fill):
    config = CollectionConfig(gold=0.2, repeats=0.2, repeat_distance=5, overlap=0, practice=0)
    ann = fill(config, prompts=80, gold=40, annotators=1)["annotator-1"]
    seen = all_of(engine, ann, config)
    with reading(engine) as db:
        rows = db.execute(
            select(Assignment, Pair.purpose).join(Pair).order_by(Assignment.number)
        ).all()
    assert [row.Assignment.number for row in rows] == list(range(1, len(seen) + 1))
    kinds = Counter("repeat" if a.repeat else purpose for a, purpose in rows)
    assert kinds["label"] == 80 and 15 <= kinds["gold"] <= 40 and 15 <= kinds["repeat"] <= 45
    first = {a.pair_id: a for a, _ in rows if not a.repeat}
    for assignment, _ in rows:
        if assignment.repeat:
            original = first[assignment.pair_id]
            assert assignment.swapped is not original.swapped
            assert assignment.number > original.number + 5
    assert 20 < sum(a.swapped for a, _ in rows) < len(rows) - 20


def test_a_restart_changes_nothing(tmp_path, fill):
    config = CollectionConfig(gold=0.3, repeats=0.3, repeat_distance=2, practice=2, seed=7)
    orders = []
    for name, restarts in (("one.db", False), ("two.db", True)):
        store = open_store(str(tmp_path / name))
        ann = fill(config, store, prompts=15, gold=5, practice=2, annotators=1)["annotator-1"]
        order = []
        while (shown := ask(store, ann, config)) is not None:
            order.append((str(shown.messages), shown.left))
            say(store, ann, shown, right(shown) if shown.practice else "tie", config)
            if restarts:
                store.dispose()
                store = open_store(str(tmp_path / name))
        store.dispose()
        orders.append(order)
    assert orders[0] == orders[1] and len(orders[0]) > 20


def test_gold_and_repeats_are_shares_of_the_same_pairs():
    with pytest.raises(InputError, match=r"together at most 1, got 0\.7 and 0\.4"):
        CollectionConfig(gold=0.7, repeats=0.4)


def test_a_repeat_is_far_from_the_last_judgement_of_its_pair(engine, fill):
    """An undone pair that is judged again last has just been seen, whatever its number."""
    config = CollectionConfig(gold=0, repeats=1, repeat_distance=3, overlap=0, practice=0)
    ann = fill(config, prompts=9, annotators=1)["annotator-1"]
    seen = [ask(engine, ann, config)]
    for _ in range(3):
        say(engine, ann, seen[-1], config=config)
        seen.append(ask(engine, ann, config))
    with writing(engine) as db:
        for _ in range(3):
            undo(db, ann, 0.0)
    say(engine, ann, seen[3], config=config)  # 4, 2, 3, 1
    again = [replace(seen[i], attempt=2) for i in (1, 2, 0)]
    for shown in again:
        say(engine, ann, shown, config=config)
    fresh = ask(engine, ann, config)
    assert fresh.messages not in [shown.messages for shown in seen]
    say(engine, ann, fresh, config=config)
    assert ask(engine, ann, config).messages == seen[1].messages


def test_nobody_outside_can_work_out_the_draws(tmp_path, fill):
    """The same seed, pairs and people in two databases: other sides, other places of gold."""
    config = CollectionConfig(gold=0.5, repeats=0, overlap=0, practice=0)
    found = []
    for name in ("one.db", "two.db"):
        store = open_store(str(tmp_path / name))
        ann = fill(config, store, prompts=20, gold=20, annotators=1)["annotator-1"]
        with writing(store) as db:
            db.execute(delete(Secret))
        all_of(store, ann, config)
        with reading(store) as db:
            drawn = select(Assignment.swapped, Pair.purpose).join(Pair).order_by(Assignment.number)
            found.append(list(zip(*db.execute(drawn), strict=True)))
        store.dispose()
    one, two = found
    assert one[0][:20] != two[0][:20] and one[1][:20] != two[1][:20]


@pytest.mark.parametrize(
    ("sides", "goes"),
    [(("left", "right", "tie"), True), (("cannot_judge", "cannot_judge", "tie"), True),
     (("tie", "tie", "cannot_judge"), False)],
)  # fmt: skip
def test_without_a_majority_a_senior_decides(engine, fill, sides, goes):
    config = CollectionConfig(overlap=1, annotators=3, gold=0, repeats=0, practice=0)
    people = fill(config, prompts=1, annotators=4, seniors=2)
    lower = None
    for i, side in enumerate(sides):
        person = people[f"annotator-{i + 1}"]
        shown = ask(engine, person, config)
        lower = lower or min(shown.left, shown.right)
        if side in ("left", "right"):
            side = "left" if (shown.left == lower) == (side == "left") else "right"
        say(engine, person, shown, side, config)
    assert ask(engine, people["annotator-4"], config) is None
    shown = ask(engine, people["senior-1"], config)
    assert (shown is not None) is goes
    assert ask(engine, people["senior-2"], config) is None
    if goes:
        say(engine, people["senior-1"], shown, "tie", config)
        assert ask(engine, people["senior-2"], config) is None
    with reading(engine) as db:
        to_decide = db.scalars(select(Assignment.person_id).where(Assignment.to_decide)).all()
    assert to_decide == [people["senior-1"].id] * goes


def divided(engine, people, names, config):
    """They get the one pair there is, and say different things of it; the judgement of the last."""
    for name, side in zip(names, ("tie", "left"), strict=True):
        last = say(engine, people[name], ask(engine, people[name], config), side, config)
    return last


def waiting(engine):
    with reading(engine) as db:
        pair = db.scalars(select(Pair)).one()
        return pair.queue, pair.missing, pair.decision


def test_a_senior_among_those_who_judged_has_decided(engine, fill):
    """One who has had the pair cannot be asked again: a lone one would block it for ever."""
    config = CollectionConfig(overlap=1, annotators=2, gold=0, repeats=0, practice=0)
    people = fill(config, prompts=1, annotators=1, seniors=1)
    last = divided(engine, people, ("annotator-1", "senior-1"), config)
    assert waiting(engine) == (None, 0, last.id)


def test_an_annotator_can_be_made_a_senior(engine, fill):
    """What was divided between them is decided by that, and nothing else is."""
    config = CollectionConfig(overlap=1, annotators=2, gold=0, repeats=0, practice=0)
    people = fill(config, prompts=1, annotators=3)
    last = divided(engine, people, ("annotator-1", "annotator-2"), config)
    for name, expected in (("3", ("senior", 1, None)), ("2", (None, 0, last.id))):
        with writing(engine) as db:
            invite(db, f"annotator-{name}", "senior", 0.0)
        assert waiting(engine) == expected
    with writing(engine) as db, pytest.raises(InputError, match="as senior, not as annotator"):
        invite(db, "annotator-2", "annotator", 0.0)


def test_who_is_unwilling_leaves_the_pair_to_others(engine, fill):
    people = fill(PLAIN, prompts=1)
    shown = ask(engine, people["annotator-1"])
    say(engine, people["annotator-1"], shown, "unwilling")
    assert ask(engine, people["annotator-1"]) is None
    assert ask(engine, people["annotator-2"]).messages == shown.messages


def test_what_is_loaded_later_is_found(engine, fill):
    ann = fill(PLAIN, prompts=3, annotators=1)["annotator-1"]
    assert len(all_of(engine, ann, PLAIN)) == 3
    fill(PLAIN, prompts=30, annotators=0)
    assert len(all_of(engine, ann, PLAIN)) == 27
    with reading(engine) as db:
        waiting = select(func.count()).select_from(Pair).where(Pair.queue.is_not(None))
        assert db.scalar(waiting) == 0
