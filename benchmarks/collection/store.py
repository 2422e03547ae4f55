"""How long `next_assignment` and `judge` take, with many pairs and people. Prints one JSON object.

python -m benchmarks.collection.store --pairs 100000 --people 64
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from benchmarks.collection.databases import databases
from glm_jax.data.collection import loading, people
from glm_jax.data.collection.labelling.answers import Answer
from glm_jax.data.collection.labelling.assignment import next_assignment
from glm_jax.data.collection.labelling.judging import judge
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import open_store, writing
from glm_jax.data.collection.tables import Person
from glm_jax.data.collection.web.guidelines import publish
from glm_jax.data.records import Pair


def made_up(n: int) -> Iterator[Pair]:
    for i in range(n):
        ask = [{"role": "user", "content": f"question {i}"}]
        yield Pair(id=str(i), prompt=ask, chosen=f"one {i} " * 40, rejected=f"other {i} " * 40)


def measure(url: str, n_pairs: int, n_people: int, rounds: int) -> dict[str, Any]:
    config = CollectionConfig(practice=0)
    engine = open_store(url)
    begin = time.perf_counter()
    with writing(engine) as db:
        publish(db, "# Guidelines", 0.0)
        loading.load_pairs(db, made_up(n_pairs), config)
        for i in range(n_people):
            people.invite(db, f"person {i}", "annotator", 0.0)
        team = db.scalars(select(Person)).all()
    loaded = time.perf_counter() - begin
    seconds: dict[str, list[tuple[float, float]]] = {"next_assignment": [], "judge": []}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        begin = time.perf_counter(), time.process_time()
        yield
        end = time.perf_counter(), time.process_time()
        seconds[name].append((end[0] - begin[0], end[1] - begin[1]))

    for turn in range(rounds):
        for person in team:
            now = float(turn)
            with timed("next_assignment"), writing(engine, flushed=False) as db:
                shown = next_assignment(db, person, config, now)
            assert shown is not None
            answer = Answer(assignment_id=shown.assignment_id, side="left", strength=1)
            with timed("judge"), writing(engine) as db:
                judge(db, person, answer, config, now)
    engine.dispose()
    return {"pairs": n_pairs, "people": n_people, "loading_seconds": round(loaded, 1)} | {
        name: _milliseconds(values) for name, values in seconds.items()
    }


def _milliseconds(values: list[tuple[float, float]]) -> dict[str, float]:
    """`cpu`: of this process, without the database's."""
    (median, late), (cpu, _) = 1000 * np.percentile(values, [50, 99], axis=0).T
    return {
        name: round(float(v), 2) for name, v in (("median", median), ("p99", late), ("cpu", cpu))
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder), asked.postgresql) as made:
        print(json.dumps(measure(made("one"), asked.pairs, asked.people, asked.rounds)))
