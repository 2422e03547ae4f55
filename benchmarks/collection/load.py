"""A collection under load: annotators at once over HTTP, a server that is killed and comes back.

    python -m benchmarks.collection.load [--annotators 64] [--kills 20] [--postgresql]

Three rounds, each on a database of its own: `killed` (as fast as the server answers, while it gets
kill -9 and is started again), `paced` (an answer in two seconds from each), `fast` (no pause).
After each, every label that the server has acknowledged is looked for in the database. Annotators
and server share the machine's cores. Prints one JSON object; what it promises and does not keep is
said at the end, with exit status 1.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from benchmarks.collection.databases import databases
from benchmarks.collection.server import Server, invited, samples
from glm_jax.data import records
from glm_jax.data.collection import store
from glm_jax.data.collection.simulation.client import plain
from glm_jax.data.collection.simulation.simulate import Label, label_all
from glm_jax.data.collection.tables import Assignment, Judgement, Pair, Prompt, Response

PACE = 2.0  # seconds an answer
MEDIAN, P99 = 50, 300  # milliseconds that a page or an answer may take at that pace
LIVES = (0.2, 1.0)  # seconds that a server lives between two kills


def judge(prompt: str, left: str, right: str) -> tuple[str, int | None]:
    """Someone without an opinion: only what becomes of his answer matters here."""
    side = random.choice(("left", "right", "tie"))
    return side, None if side == "tie" else random.choice((1, 2))


def load(
    links: Sequence[str], seconds: float, pace: float, server: Server, kills: int = 0
) -> tuple[list[Label], float]:
    """All annotators label for so long, and until the last kill; their labels, and the seconds."""
    over, failed = threading.Event(), []

    def hurt() -> None:
        rng = random.Random(0)
        try:
            for _ in range(kills):
                over.wait(rng.uniform(*LIVES))
                server.kill()
                server.start()
            over.wait(max(0.0, start + seconds - time.monotonic()))
        except RuntimeError as error:
            failed.append(error)
        over.set()

    start = time.monotonic()
    clock = threading.Thread(target=hurt)
    clock.start()
    try:
        going = label_all(links, [judge] * len(links), lambda done: not over.is_set(), pace=pace)
        labels = asyncio.run(going)
    finally:
        over.set()
        clock.join()
    if failed:
        raise failed[0]
    return labels, time.monotonic() - start


def found(db: str, labels: Sequence[Label]) -> dict[str, int]:
    """What became of the acknowledged labels; `unacknowledged` are stored, but nobody was told."""
    engine = store.open_store(db)
    with store.reading(engine) as session:
        assignments = {
            assignment.id: (assignment, pair, prompt)
            for assignment, pair, prompt in session.execute(
                select(Assignment, Pair, Prompt)
                .join(Pair, Assignment.pair_id == Pair.id)
                .join(Prompt, Pair.prompt_id == Prompt.id)
            )
        }
        texts = dict(session.execute(select(Response.id, Response.text)).all())
        stored = session.scalars(select(Judgement)).all()
    engine.dispose()
    times = Counter(judgement.assignment_id for judgement in stored)
    verdicts = {judgement.assignment_id: judgement for judgement in stored}
    pairs = Counter((a.person_id, a.pair_id, a.repeat) for a, _, _ in assignments.values())

    def wrong(label: Label) -> bool:
        assignment, pair, prompt = assignments[label.assignment]
        left, right = pair.first_id, pair.second_id
        if assignment.swapped:
            left, right = right, left
        meant = {"left": left, "right": right}.get(label.side)
        verdict = {pair.first_id: "first", pair.second_id: "second"}.get(meant, label.side)
        given = verdicts[label.assignment]
        shown = plain(prompt.messages[-1]["content"]), plain(texts[left]), plain(texts[right])
        return (verdict, label.strength, (label.prompt, label.left, label.right)) != (
            given.verdict, given.strength, shown,
        )  # fmt: skip

    return {
        "acknowledged": len(labels),
        "lost": sum(label.assignment not in times for label in labels),
        "twice": sum(n > 1 for n in times.values()) + sum(n > 1 for n in pairs.values())
        + len(labels) - len({label.assignment for label in labels}),
        "wrong": sum(wrong(label) for label in labels if label.assignment in times),
        "unacknowledged": len(times.keys() - {label.assignment for label in labels}),
    }  # fmt: skip


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    median, high = np.quantile(seconds, (0.5, 0.99)) * 1000
    return {"median": round(float(median), 2), "p99": round(float(high), 2)}


def measure(
    db: str, file: Path, annotators: int, seconds: float, pace: float, kills: int
) -> dict[str, Any]:
    """One round on a new database."""
    with Server(db, str(file)) as server:
        links = invited(db, server.url, annotators)
        labels, took = load(links, seconds, pace, server, kills)
    times = [[s.judge_seconds for s in labels], [s.page_seconds for s in labels]]
    return found(db, labels) | {
        "kills": kills, "seconds": round(took, 1),
        "labels_per_second": round(len(labels) / took, 1),
        "judge_ms": milliseconds(times[0]), "page_ms": milliseconds(times[1]),
        "all_ms": milliseconds(times[0] + times[1]),
    }  # fmt: skip


def broken(told: dict[str, dict[str, Any]]) -> list[str]:
    """What the rounds show that must not be."""
    found = [
        f"{name}: {fault} {labels}"
        for name, of in told.items()
        for fault in ("lost", "twice", "wrong")
        if (labels := of[fault])
    ]
    found += [f"{name}: no labels" for name, of in told.items() if not of["acknowledged"]]
    for what, limit in (("median", MEDIAN), ("p99", P99)):
        if (took := told["paced"]["all_ms"][what]) >= limit:
            found.append(f"paced: {what} {took} ms, not below {limit}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotators", type=int, default=64)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the paced and fast rounds")
    parser.add_argument(
        "--prompts", type=int, default=2000, help="with four answers, six pairs each"
    )
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    given = parser.parse_args()
    rounds = {  # seconds, pace, kills
        "killed": (0.0, 0.0, given.kills),
        "paced": (given.seconds, PACE, 0),
        "fast": (given.seconds, 0.0, 0),
    }
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder), given.postgresql) as made:
        file = Path(folder) / "samples.jsonl"
        records.write(file, samples(given.prompts, 4, 0))
        told = {
            name: measure(made(name), file, given.annotators, *settings)
            for name, settings in rounds.items()
        }
    about = {
        "database": "postgresql" if given.postgresql else "sqlite", "annotators": given.annotators,
        "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(),
    }  # fmt: skip
    print(json.dumps(about | told, indent=2))
    if faults := broken(told):
        raise SystemExit("\n".join(faults))


if __name__ == "__main__":
    main()
