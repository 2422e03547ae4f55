"""A database of made-up pairs: `engine` and `fill`; `either` is SQLite, then PostgreSQL.

`browser` is a real one, with the screens DESK and PHONE; `ask` is for the next pair.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from benchmarks.collection import databases
from glm_jax.data.collection import loading, people
from glm_jax.data.collection.labelling.assignment import Shown, next_assignment
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import open_store, writing
from glm_jax.data.collection.tables import Person, Secret, Table
from glm_jax.data.collection.web.guidelines import publish
from glm_jax.data.records import Pair, Sample

NOW = 1_700_000_000.0
PLAIN = CollectionConfig(overlap=0, gold=0, repeats=0, practice=0)
LEASE = 60 * PLAIN.lease_minutes
DESK = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
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
    """The URL of a database of a PostgreSQL of our own."""
    if not databases.programs():
        pytest.skip("PostgreSQL is not installed")
    with databases.cluster("-c", "fsync=off") as made:
        yield made("either")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the system has no Chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


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

    People are called annotator-1, ..., senior-1, ..., admin; guidelines have version 1;
    the secret is no secret, so that tests can count on what is drawn.
    """
    with writing(engine) as db:
        db.merge(Secret(id=1, text="drawn alike in every run"))
        publish(db, "# Guidelines\n\nBe fair.", NOW)
        loading.load_pairs(db, made_up_samples(prompts, responses), config)
        loading.load_gold(db, made_up_gold("gold", gold), config)
        loading.load_gold(db, made_up_gold("practice", practice), config, purpose="practice")
        for i in range(annotators):
            people.invite(db, f"annotator-{i + 1}", "annotator", NOW)
        for i in range(seniors):
            people.invite(db, f"senior-{i + 1}", "senior", NOW)
        people.invite(db, "admin", "administrator", NOW)
        return {person.name: person for person in db.scalars(select(Person))}


def ask(
    engine: Engine, person: Person, config: CollectionConfig = PLAIN, now: float = 0.0
) -> Shown | None:
    with writing(engine) as db:
        return next_assignment(db, person, config, now)


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
