"""Databases of made-up pairs: `engine` and `fill`; `either` is SQLite, then PostgreSQL.

`scene` is a collection in memory whose people and judgements a test writes itself.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from glm_jax.data.collection import loading, people, tables
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import open_store, writing
from glm_jax.data.collection.tables import Person, Table
from glm_jax.data.records import Pair, Sample

NOW = 1_700_000_000.0
NOON = NOW // 86400 * 86400 + 43200
Fill = Callable[..., dict[str, Person]]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_store(str(tmp_path / "preferences.db"))
    yield opened
    opened.dispose()


@pytest.fixture
def fill(engine: Engine) -> Fill:
    """Fills `engine`, or another one that is given."""

    def filled(config: CollectionConfig, into: Engine = engine, **numbers: object) -> dict:
        return fill_store(into, config, **numbers)

    return filled


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        url = str(tmp_path / "either.db")
    else:
        url = request.getfixturevalue("postgres")
    opened = open_store(url)
    Table.metadata.drop_all(opened)
    Table.metadata.create_all(opened)
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL of our own, which only a socket in a temporary folder leads to."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    control = shutil.which("pg_ctl") or (str(found[-1]) if found else None)
    if control is None:
        pytest.skip("no PostgreSQL on this machine (pg_ctl)")
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"

    def run(*command: str) -> None:
        done = subprocess.run(
            [control, "-D", str(folder / "data"), *command],
            user=user, cwd=folder, stdout=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"PostgreSQL does not start here: {' '.join(command)}")

    try:
        if user is not None:
            shutil.chown(folder, user)
        run("initdb", "-o", "--auth=trust --username=postgres --encoding=UTF8 --no-sync")
        run("start", "-w", "-l", str(folder / "log"), "-o", options)
        yield f"postgresql://postgres@/postgres?host={folder}"
        run("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def fill_store(
    engine: Engine,
    config: CollectionConfig,
    *,
    prompts: int = 20,
    responses: int = 2,
    gold: int = 0,
    practice: int = 0,
    annotators: int = 2,
    seniors: int = 0,
) -> dict[str, Person]:
    """All pairs of `responses` to each prompt, gold whose right answer begins with "Right", people.

    People are called annotator-1, ..., senior-1, ..., admin; guidelines have version 1.
    """
    with writing(engine) as db:
        loading.publish(db, "# Guidelines\n\nBe fair.", NOW)
        loading.load_pairs(db, made_up_samples(prompts, responses), config, NOW)
        loading.load_gold(db, made_up_gold("gold", gold), config, NOW)
        loading.load_gold(db, made_up_gold("practice", practice), config, NOW, purpose="practice")
        for i in range(annotators):
            people.invite(db, f"annotator-{i + 1}", "annotator", NOW)
        for i in range(seniors):
            people.invite(db, f"senior-{i + 1}", "senior", NOW)
        people.invite(db, "admin", "administrator", NOW)
        return {person.name: person for person in db.scalars(select(Person))}


def made_up_samples(prompts: int, responses: int) -> Iterator[Sample]:
    for i in range(prompts):
        for j in range(responses):
            text = f"The answer is **{i + j}**.\n\n```python\nprint({i} + {j})\n```"
            yield Sample(
                id=f"prompt-{i}", sample=j, prompt=_asked(f"What is {i} plus something?"),
                text=text, tokens=[], log_probs=[], finish="stop", category="arithmetic",
                score=float(j),
            )  # fmt: skip


def made_up_gold(name: str, n: int) -> Iterator[Pair]:
    for i in range(n):
        yield Pair(
            id=f"{name}-{i}", prompt_id=f"{name}-{i}", prompt=_asked(f"Is this {name}, {i}?"),
            chosen=f"Right: {name} {i}", rejected=f"Wrong: {name} {i}",
        )  # fmt: skip


def _asked(text: str) -> list:
    return [{"role": "user", "content": text}]


class Scene:
    """Adds rows to an empty collection; whatever is not said is as plain as can be."""

    def __init__(self, db: Session) -> None:
        self.db = db
        self.pairs = 0
        self.people: dict[str, tables.Person] = {}
        self.numbers: dict[str, int] = {}
        self._add(tables.Guidelines(version=1, text="Be fair.", created=NOON))

    def person(self, name: str, role: str = "annotator") -> tables.Person:
        if name not in self.people:
            self.people[name] = self._add(
                tables.Person(name=name, role=role, state="active", created=NOON)
            )
        return self.people[name]

    def pair(
        self,
        first: str = "a",
        second: str = "b",
        prompt: str | None = None,
        texts: tuple[str, str] | None = None,
        **more: Any,
    ) -> tables.Pair:
        """Of two responses, called in order; of a prompt of its own unless that is named."""
        assert first < second
        self.pairs += 1
        prompt = f"p{self.pairs}" if prompt is None else prompt
        if self.db.get(tables.Prompt, prompt) is None:
            said = [{"role": "user", "content": f"What of {prompt}?"}]
            self._add(tables.Prompt(id=prompt, messages=said, category="talk", language="en"))
        ids = [f"{prompt}/{first}", f"{prompt}/{second}"]
        for name, text in zip(ids, texts or (first, second), strict=True):
            if self.db.get(tables.Response, name) is None:
                self._add(tables.Response(id=name, prompt_id=prompt, text=text))
        return self._add(
            tables.Pair(
                prompt_id=prompt, first_id=ids[0], second_id=ids[1], place=self.pairs, **more
            )
        )

    def judge(self, name: str, pair: tables.Pair, verdict: str, **more: Any) -> tables.Judgement:
        """`swapped` and `repeat` belong to the assignment, everything else to the judgement."""
        person, number = self.person(name), self.numbers.get(name, 0) + 1
        self.numbers[name] = number
        self._add(
            tables.Assignment(
                id=f"{name} {number}",
                pair_id=pair.id,
                person_id=person.id,
                number=number,
                swapped=more.pop("swapped", False),
                repeat=more.pop("repeat", False),
                fate="answered",
                leased_until=NOON,
                created=NOON,
            )
        )
        values = {
            "strength": None if verdict == "tie" else 1,
            "criteria": {},
            "flags": [],
            "milliseconds": 1000 * number,
            "created": NOON + number,
        }
        return self._add(
            tables.Judgement(
                assignment_id=f"{name} {number}",
                attempt=1,
                verdict=verdict,
                guidelines=1,
                **values | more,
            )
        )

    def retract(self, name: str, kind: str, judgement: tables.Judgement | None = None) -> None:
        person = self.person(name)
        self._add(
            tables.Retraction(
                kind=kind,
                judgement_id=judgement and judgement.id,
                person_id=person.id,
                by_id=person.id,
                created=NOON,
            )
        )

    def _add(self, row: Any) -> Any:
        self.db.add(row)
        self.db.flush()
        return row


@pytest.fixture
def scene() -> Iterator[Scene]:
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    tables.Table.metadata.create_all(engine)
    with Session(engine) as db:
        yield Scene(db)
    engine.dispose()
