"""A server that is killed under load keeps every label that it has acknowledged, once."""

import asyncio
import dataclasses
import time

import pytest
from sqlalchemy import select, update

from benchmarks.collection.databases import databases, programs
from benchmarks.collection.load import broken, found, judge, measure
from benchmarks.collection.server import Server, invited, samples
from glm_jax.data import records
from glm_jax.data.collection import store
from glm_jax.data.collection.simulation.simulate import label_all, simulate
from glm_jax.data.collection.tables import Judgement


@pytest.mark.parametrize("postgresql", [False, True], ids=["sqlite", "postgresql"])
def test_killed_servers_lose_nothing(tmp_path, postgresql):
    if postgresql and not programs():
        pytest.skip("PostgreSQL is not installed")
    file = tmp_path / "samples.jsonl"
    records.write(file, samples(300, 3, 0))
    with databases(tmp_path, postgresql) as made:
        told = measure(made("one"), file, annotators=16, seconds=1, pace=0.2, kills=3)
    assert {name: told[name] for name in ("lost", "twice", "wrong", "unacknowledged")} == {
        "lost": 0, "twice": 0, "wrong": 0, "unacknowledged": 0,
    }  # fmt: skip
    assert told["acknowledged"] >= 16


def test_time_can_pass_faster_for_annotators(tmp_path):
    """Four pairs at 20 seconds each take less than that: what is recorded is their time."""
    file, db = tmp_path / "samples.jsonl", str(tmp_path / "one.db")
    shown = list(samples(20, 3, 0))
    records.write(file, shown)
    with Server(db, str(file)) as server:
        links = invited(db, server.url, 1)
        began = time.monotonic()
        simulate(shown, links, pairs=4, pace=20, speed=100)
        assert time.monotonic() - began < 4 * 20 / 2
    with store.reading(store.open_store(db)) as session:
        times = list(session.scalars(select(Judgement.milliseconds)))
    assert len(times) == 4 and min(times) >= 10_000


def test_what_a_measurement_must_not_show():
    good = {"acknowledged": 9, "lost": 0, "twice": 0, "wrong": 0}
    rounds = {name: dict(good) for name in ("killed", "paced", "fast")}
    rounds["paced"]["all_ms"] = {"median": 49.9, "p99": 299.9}
    assert broken(rounds) == []
    rounds["killed"]["lost"] = 2
    rounds["fast"]["acknowledged"] = 0
    rounds["paced"]["all_ms"] = {"median": 50.0, "p99": 300.0}
    assert broken(rounds) == [
        "killed: lost 2",
        "fast: no labels",
        "paced: median 50.0 ms, not below 50",
        "paced: p99 300.0 ms, not below 300",
    ]


def test_what_is_lost_twice_or_wrong_is_found(tmp_path):
    """The check itself: labels that were never given, and a database that says otherwise."""
    file, db = tmp_path / "samples.jsonl", str(tmp_path / "one.db")
    records.write(file, samples(20, 3, 0))
    with Server(db, str(file)) as server:
        links = invited(db, server.url, 2)
        labels = asyncio.run(label_all(links, [judge] * 2, lambda done: done < 3))
    invented = dataclasses.replace(labels[0], assignment="another")
    assert found(db, [*labels, invented])["lost"] == 1
    assert found(db, [*labels, labels[0]])["twice"] == 1
    assert found(db, labels[1:])["unacknowledged"] == 1
    confused = dataclasses.replace(labels[0], left=labels[0].left + " .")
    assert found(db, [confused, *labels[1:]])["wrong"] == 1
    with store.writing(store.open_store(db)) as session:
        session.execute(
            update(Judgement)
            .where(Judgement.assignment_id == labels[0].assignment)
            .values(verdict="unwilling")
        )
    assert found(db, labels)["wrong"] == 1
