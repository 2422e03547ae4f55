"""Some of a file's pairs and samples: which of their prompts, responses and pairs are new."""

import hashlib
from collections import defaultdict
from typing import Any, TypeAlias

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from glm_jax.data import records
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.tables import Pair, Prompt, Purpose, Response
from glm_jax.data.records import draw, prompt_key
from glm_jax.errors import InputError

Item: TypeAlias = records.Pair | records.Sample


class Batch:
    """What is new of the items, beside what the database has of their prompts.

    New pairs are numbered here, from `last` on: a sequence of PostgreSQL would have gaps, and the
    number of the last pair is how many there are. Raises InputError for an id with two meanings.
    """

    def __init__(
        self,
        db: Session,
        items: list[Item],
        config: CollectionConfig,
        purpose: Purpose,
        last: int,
    ) -> None:
        self.db, self.config, self.purpose, self.last = db, config, purpose, last
        self.rows: dict[type, list[dict[str, Any]]] = {Prompt: [], Response: [], Pair: []}
        self.named: set[int] = set()  # the numbers of the items' pairs, new or not
        self.same = 0  # pairs whose two texts are equal
        self._read(items)
        for item in items:
            if isinstance(item, records.Sample):
                self._add_sample(item)
            else:
                self._add_pair(item)

    def insert(self) -> None:
        for table, rows in self.rows.items():
            if rows:
                self.db.execute(insert(table), rows)

    def _read(self, items: list[Item]) -> None:
        """What the database has of the items' prompts, and of responses called as theirs are."""
        keys, names = {_key(item) for item in items}, {_prompt_id(item) for item in items}
        prompts = select(Prompt.id, Prompt.key).where(Prompt.key.in_(keys) | Prompt.id.in_(names))
        self.keys: dict[str, str] = {name: key for name, key in self.db.execute(prompts)}
        self.prompts = {key: name for name, key in self.keys.items()}

        given = {name for item in items for name in _given(item)}
        responses = select(Response.id, Response.prompt_id, Response.text)
        responses = responses.where(Response.prompt_id.in_(self.keys) | Response.id.in_(given))
        self.responses: dict[str, dict[str, str]] = defaultdict(dict)  # of a prompt: text to id
        self.owners: dict[str, str] = {}  # the prompts of responses
        for name, prompt, text in self.db.execute(responses):
            self.responses[prompt][text], self.owners[name] = name, prompt

        pairs = select(Pair.first_id, Pair.second_id, Pair.id, Pair.purpose)
        found = self.db.execute(pairs.where(Pair.prompt_id.in_(self.keys))).all()
        self.numbers = {(first, second): number for first, second, number, _ in found}
        labels = {name for *both, _, purpose in found if purpose == "label" for name in both}
        # responses that only make pairs whose answer is known
        self.told = {name for both in self.numbers for name in both} - labels

    def _add_sample(self, item: records.Sample) -> None:
        """With every response of its prompt that is there to be labelled."""
        prompt = self._prompt(item)
        others = [name for name in self.responses[prompt].values() if name not in self.told]
        added = self._response(prompt, item.text, None, item.id)
        self.told.discard(added)
        for other in others:
            if other != added:
                self._pair(prompt, added, other, None)

    def _add_pair(self, item: records.Pair) -> None:
        prompt = self._prompt(item)
        chosen = self._response(prompt, item.chosen, item.chosen_id, item.id)
        rejected = self._response(prompt, item.rejected, item.rejected_id, item.id)
        if chosen == rejected:
            self.same += 1
            return
        self._pair(prompt, chosen, rejected, None if item.tie else chosen)
        if self.purpose == "label":
            self.told -= {chosen, rejected}

    def _prompt(self, item: Item) -> str:
        """The id of a prompt: as given, unless its messages are known by another."""
        name, key = _prompt_id(item), _key(item)
        if self.keys.get(name, key) != key and isinstance(item, records.Sample):
            name = key  # ids of samples may be the numbers of lines, in other files of others
        if self.keys.get(name, key) != key:
            raise InputError(f"{item.id!r}: the prompt {name!r} has other messages elsewhere")
        if key in self.prompts:
            return self.prompts[key]
        self.prompts[key], self.keys[name] = name, key
        self.rows[Prompt].append(
            {
                "id": name,
                "key": key,
                "messages": item.prompt,
                "category": item.category,
                "language": getattr(item, "language", None),  # samples have none
                "task": item.task,
            }
        )
        return name

    def _response(self, prompt: str, text: str, given: str | None, where: str) -> str:
        """The id of a response: as given, unless a response of another prompt is called so."""
        known = self.responses[prompt]
        if text in known:
            return known[text]
        name = given or _digest(f"{prompt}\n{text}")
        if self.owners.get(name, prompt) != prompt:
            name = f"{prompt}:{name}"
        if name in self.owners:
            raise InputError(f"{where!r}: the response {name!r} has another text elsewhere")
        known[text], self.owners[name] = name, prompt
        self.rows[Response].append({"id": name, "prompt_id": prompt, "text": text})
        return name

    def _pair(self, prompt: str, one: str, other: str, better: str | None) -> None:
        first, second = both = min(one, other), max(one, other)
        if both not in self.numbers:
            self.numbers[both] = self.last + 1 + len(self.rows[Pair])
            answer = "tie" if better is None else "first" if better == first else "second"
            self.rows[Pair].append(
                {
                    "id": self.numbers[both],
                    "prompt_id": prompt,
                    "first_id": first,
                    "second_id": second,
                    "purpose": self.purpose,
                    **_plan(self.config, self.purpose, f"{first}\n{second}", answer),
                }
            )
        self.named.add(self.numbers[both])


def _plan(config: CollectionConfig, purpose: Purpose, key: str, answer: str) -> dict[str, Any]:
    """What a new pair is asked for, and when."""
    is_label = purpose == "label"
    several = draw(config.seed, f"overlap:{key}") < config.overlap * 2**64
    wanted = (config.annotators if several else 1) if is_label else 0
    return {
        "answer": None if is_label else answer,
        "wanted": wanted,
        "missing": wanted,
        "queue": "new" if is_label else purpose,
        "place": draw(config.seed, f"place:{key}") >> 1,  # fits a signed 64-bit column
    }


def _prompt_id(item: Item) -> str:
    if isinstance(item, records.Sample):
        return item.id
    return item.prompt_id or _key(item)


def _key(item: Item) -> str:
    return _digest(prompt_key(item.prompt))


def _given(item: Item) -> set[str]:
    """The ids that its responses come with."""
    ids = () if isinstance(item, records.Sample) else (item.chosen_id, item.rejected_id)
    return {name for name in ids if name is not None}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=12).hexdigest()
