"""A server that is killed under load keeps every label that it has acknowledged, once."""

from pathlib import Path

import pytest

from glm_jax.data import records

ROOT = Path(__file__).parents[3]


@pytest.fixture
def collect(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import collect

    return collect


@pytest.mark.parametrize("postgresql", [False, True], ids=["sqlite", "postgresql"])
def test_killed_servers_lose_nothing(collect, tmp_path, postgresql):
    from benchmarks.postgresql import programs

    if postgresql and not programs():
        pytest.skip("PostgreSQL is not installed")
    file = tmp_path / "samples.jsonl"
    records.write(file, collect.samples(300, 3, 0))
    with collect.databases(tmp_path, postgresql) as made:
        told = collect.measure(made("one"), file, annotators=16, seconds=1, pace=0.2, kills=3)
    assert {name: told[name] for name in ("lost", "twice", "wrong", "unacknowledged")} == {
        "lost": 0, "twice": 0, "wrong": 0, "unacknowledged": 0,
    }  # fmt: skip
    assert told["acknowledged"] >= 16


def test_what_is_lost_twice_or_wrong_is_found(collect, tmp_path):
    """The check itself: labels that were never given, and a database that says otherwise."""
    import dataclasses

    from sqlalchemy import update

    from glm_jax.data.collection import store
    from glm_jax.data.collection.tables import Judgement

    file, db = tmp_path / "samples.jsonl", str(tmp_path / "one.db")
    records.write(file, collect.samples(20, 3, 0))
    with collect.Server(db, str(file)) as server:
        links = collect.invited(db, server.url, 2)
        labels, _ = collect.load(links, 0.5, 0.1, server)
    assert len(labels) > 3
    invented = dataclasses.replace(labels[0], assignment="another")
    assert collect.found(db, [*labels, invented])["lost"] == 1
    assert collect.found(db, [*labels, labels[0]])["twice"] == 1
    assert collect.found(db, labels[1:])["unacknowledged"] == 1
    confused = dataclasses.replace(labels[0], left=labels[0].left + " .")
    assert collect.found(db, [confused, *labels[1:]])["wrong"] == 1
    with store.writing(store.open_store(db)) as session:
        session.execute(
            update(Judgement)
            .where(Judgement.assignment_id == labels[0].assignment)
            .values(verdict="unwilling")
        )
    assert collect.found(db, labels)["wrong"] == 1
