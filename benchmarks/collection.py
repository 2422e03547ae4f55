"""How long `next_assignment` and `judge` take, with many pairs and people.

python benchmarks/collection.py --pairs 100000 --people 64
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sqlalchemy import select

from glm_jax.data.collection import loading, people
from glm_jax.data.collection.assignment import next_assignment
from glm_jax.data.collection.judging import Answer, judge
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import open_store, writing
from glm_jax.data.collection.tables import Person
from glm_jax.data.records import Pair


def made_up(n: int) -> Iterator[Pair]:
    for i in range(n):
        ask = [{"role": "user", "content": f"question {i}"}]
        yield Pair(id=str(i), prompt=ask, chosen=f"one {i} " * 40, rejected=f"other {i} " * 40)


def measure(url: str, n_pairs: int, n_people: int, rounds: int) -> None:
    config = CollectionConfig(practice=0)
    engine = open_store(url)
    begin = time.perf_counter()
    with writing(engine) as db:
        loading.publish(db, "# Guidelines", 0.0)
        loaded = loading.load_pairs(db, made_up(n_pairs), config, 0.0)
        for i in range(n_people):
            people.invite(db, f"person {i}", "annotator", 0.0)
        team = db.scalars(select(Person)).all()
    print(f"loaded {loaded.pairs} pairs in {time.perf_counter() - begin:.1f} s")
    seconds: dict[str, list[tuple[float, float]]] = {"next_assignment": [], "judge": []}

    def timed(name: str, begin: tuple[float, float]) -> None:
        end = time.perf_counter(), time.process_time()
        seconds[name].append((end[0] - begin[0], end[1] - begin[1]))

    for turn in range(rounds):
        for person in team:
            now = float(turn)
            begun = time.perf_counter(), time.process_time()
            with writing(engine, flushed=False) as db:
                shown = next_assignment(db, person, config, now)
            timed("next_assignment", begun)
            assert shown is not None
            answer = Answer(assignment_id=shown.assignment_id, side="left", strength=1)
            begun = time.perf_counter(), time.process_time()
            with writing(engine) as db:
                judge(db, person, answer, config, now)
            timed("judge", begun)
    for name, values in seconds.items():
        (median, late), (cpu, late_cpu) = 1000 * np.percentile(values, [50, 99], axis=0).T
        print(
            f"{name}: {median:.1f} ms (99th percentile {late:.1f}), "
            f"of the processor {cpu:.1f} ms ({late_cpu:.1f})"
        )
    engine.dispose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--url", help="of a PostgreSQL that is empty; SQLite if not given")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = asked.url or str(Path(folder) / "preferences.db")
        measure(url, asked.pairs, asked.people, asked.rounds)
