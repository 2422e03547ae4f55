"""A collection in memory whose people and judgements a test writes itself."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from glm_jax.data.collection import tables

NOON = 1_700_000_000.0 // 86400 * 86400 + 43200


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
            self._add(
                tables.Prompt(id=prompt, key=prompt, messages=said, category="talk", language="en")
            )
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
        """`swapped`, `repeat`, `to_decide` are of the assignment, all else of the judgement."""
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
                to_decide=more.pop("to_decide", False),
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
