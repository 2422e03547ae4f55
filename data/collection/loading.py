"""Pairs, gold and guidelines into the database of a collection."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeAlias

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from glm_jax.data import records
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import analysed, can_be_kept, handing_out
from glm_jax.data.collection.tables import Guidelines, Pair, Person, Prompt, Purpose, Response
from glm_jax.data.records import draw, prompt_key
from glm_jax.errors import InputError

AT_ONCE = 500  # pairs or samples that are in memory

Item: TypeAlias = records.Pair | records.Sample


class Loaded(NamedTuple):
    """What was new, and what was not."""

    prompts: int = 0
    responses: int = 0
    pairs: int = 0
    known: int = 0
    "pairs that were there before the file"
    same: int = 0
    "pairs whose two texts are equal: nothing to compare"


def load_pairs(
    db: Session,
    pairs: Iterable[Item],
    config: CollectionConfig,
) -> Loaded:
    """Pairs to label; which of their responses is better, as they say, is not kept.

    A sample makes a pair with every response of its prompt that was loaded before it to be
    labelled, so that all pairs of a prompt's samples are there in the end. Prompts are the same if
    their messages are, responses of one prompt if their ids or their texts are. What was loaded
    once changes nothing: it can be loaded again, and more can. `overlap` of the pairs, drawn by
    hash of (seed, ids), want `annotators`, the others one; a second hash draws their order. Raises
    InputError for an id with two meanings and for texts that the databases cannot hold; roll back
    then.
    """
    return _load(db, pairs, config, "label")


def load_gold(
    db: Session,
    pairs: Iterable[Item],
    config: CollectionConfig,
    *,
    purpose: Literal["gold", "practice"] = "gold",
) -> Loaded:
    """Pairs whose answer is known: to check attention, or for the practice round.

    A pair keeps the purpose for which it was loaded first. Raises InputError for a sample, whose
    pairs have no answer; roll back then.
    """
    return _load(db, map(partial(_answered, purpose), pairs), config, purpose)


def publish(db: Session, guidelines: str, now: float) -> int:
    """The version of these guidelines (Markdown), a new one if they differ from the last."""
    handing_out(db)
    last = db.scalars(select(Guidelines).order_by(Guidelines.version.desc()).limit(1)).first()
    if last is not None and last.text == guidelines:
        return last.version
    version = 1 + (last.version if last else 0)
    db.add(Guidelines(version=version, text=guidelines, created=now))
    return version


def _load(db: Session, items: Iterable[Item], config: CollectionConfig, purpose: Purpose) -> Loaded:
    handing_out(db)
    last = db.scalar(select(func.max(Pair.id))) or 0
    total, rest, known = Loaded(), map(_check, items), set[tuple[str, str]]()
    while some := list(islice(rest, AT_ONCE)):
        batch = _Batch(db, some, config, purpose, last, known)
        for item in some:
            batch.add(item)
        known = batch.known  # a prompt's samples stand together: the next batch may go on with them
        total = Loaded(*map(sum, zip(total, batch.insert(last + total.pairs), strict=True)))
    if total.pairs:  # some of them before the places that people have come to
        db.execute(update(Person).values(reached=-1))
    if total.pairs > last:  # more than were there; a model's few at a time change no plan
        analysed(db)
    return total


class _Batch:
    """What is new of some pairs and samples, beside what the database has of their prompts."""

    def __init__(
        self,
        db: Session,
        items: list[Item],
        config: CollectionConfig,
        purpose: Purpose,
        last: int,
        counted: set[tuple[str, str]],
    ) -> None:
        self.db, self.config, self.purpose = db, config, purpose
        keys = {_key(item) for item in items}
        prompts = select(Prompt.id, Prompt.key)
        prompts = prompts.where(Prompt.key.in_(keys) | Prompt.id.in_({*map(_prompt_id, items)}))
        self.keys: dict[str, str] = {name: key for name, key in db.execute(prompts)}
        self.prompts = {key: name for name, key in self.keys.items()}
        ids = set(self.keys)
        self.responses: dict[str, dict[str, str]] = defaultdict(dict)  # of a prompt: text to id
        self.owners: dict[str, str] = {}  # the prompts of responses
        given = {name for item in items for name in _given(item) if name is not None}
        responses = select(Response.id, Response.prompt_id, Response.text)
        for name, prompt, text in db.execute(
            responses.where(Response.prompt_id.in_(ids) | Response.id.in_(given))
        ):
            self.responses[prompt][text], self.owners[name] = name, prompt
        pairs = select(Pair.first_id, Pair.second_id, Pair.id, Pair.purpose)
        found = db.execute(pairs.where(Pair.prompt_id.in_(ids))).all()
        self.pairs = {(pair.first_id, pair.second_id) for pair in found}
        self.before = {(pair.first_id, pair.second_id) for pair in found if pair.id <= last}
        labels = {name for *both, _, purpose in found if purpose == "label" for name in both}
        # responses that only make pairs whose answer is known
        self.told = {name for *both, _, _ in found for name in both} - labels
        self.new: dict[type, list[dict[str, Any]]] = {Prompt: [], Response: [], Pair: []}
        self.known: set[tuple[str, str]] = set()
        self.counted = counted
        self.same = 0

    def add(self, item: Item) -> None:
        prompt = self._prompt(item)
        if isinstance(item, records.Sample):
            others = [name for name in self.responses[prompt].values() if name not in self.told]
            added = self._response(prompt, item.text, None, item.id)
            self.told.discard(added)
            for other in others:
                if other != added:
                    self._pair(prompt, added, other, None)
            return
        chosen = self._response(prompt, item.chosen, item.chosen_id, item.id)
        rejected = self._response(prompt, item.rejected, item.rejected_id, item.id)
        if chosen == rejected:
            self.same += 1
        else:
            self._pair(prompt, chosen, rejected, None if item.tie else chosen)
            if self.purpose == "label":
                self.told -= {chosen, rejected}

    def insert(self, last: int) -> Loaded:
        """Numbers pairs from the `last` on: a sequence of PostgreSQL would have gaps, and the
        number of the last pair is how many there are."""
        for number, pair in enumerate(self.new[Pair], last + 1):
            pair["id"] = number
        for table, rows in self.new.items():
            if rows:
                self.db.execute(insert(table), rows)
        counts = [len(rows) for rows in self.new.values()]
        return Loaded(*counts, known=len(self.known - self.counted), same=self.same)

    def _prompt(self, item: Item) -> str:
        """The id of a prompt: as given, unless its messages are known by another."""
        name, key = _prompt_id(item), _key(item)
        if self.keys.get(name, key) != key:
            raise InputError(f"{item.id!r}: the prompt {name!r} has other messages elsewhere")
        if key in self.prompts:
            return self.prompts[key]
        self.prompts[key], self.keys[name] = name, key
        self.new[Prompt].append(
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
        self.new[Response].append({"id": name, "prompt_id": prompt, "text": text})
        return name

    def _pair(self, prompt: str, one: str, other: str, better: str | None) -> None:
        first, second = both = min(one, other), max(one, other)
        if both in self.before:
            self.known.add(both)
        if both in self.pairs:
            return
        self.pairs.add(both)
        is_label, config = self.purpose == "label", self.config
        key = f"{first}\n{second}"
        several = draw(config.seed, f"overlap:{key}") < config.overlap * 2**64
        wanted = (config.annotators if several else 1) if is_label else 0
        answer = "tie" if better is None else "first" if better == first else "second"
        self.new[Pair].append(
            {
                "prompt_id": prompt,
                "first_id": first,
                "second_id": second,
                "purpose": self.purpose,
                "answer": None if is_label else answer,
                "wanted": wanted,
                "missing": wanted,
                "queue": "new" if is_label else self.purpose,
                "place": draw(config.seed, f"place:{key}") >> 1,  # fits a signed 64-bit column
            }
        )


def _answered(purpose: Purpose, item: Item) -> Item:
    if isinstance(item, records.Sample):
        raise InputError(
            f"{item.id!r}: {purpose} needs pairs with `chosen` and `rejected`, and this is a sample"
        )
    return item


def _prompt_id(item: Item) -> str:
    if isinstance(item, records.Sample):
        return item.id
    return item.prompt_id or _key(item)


def _key(item: Item) -> str:
    return _digest(prompt_key(item.prompt))


def _given(item: Item) -> tuple[str | None, ...]:
    return () if isinstance(item, records.Sample) else (item.chosen_id, item.rejected_id)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=12).hexdigest()


def _check(item: Item) -> Item:
    """Raises InputError for what the databases cannot hold, or even be asked for."""
    texts = [item.id, item.category, *(message["content"] for message in item.prompt)]
    if isinstance(item, records.Sample):
        texts += [item.text]
    else:
        texts += [item.chosen, item.rejected, item.prompt_id, item.language, *_given(item)]
    if not all(can_be_kept(text) for text in texts if text is not None):
        raise InputError(
            f"{item.id!r}: a text has a character that cannot be kept: NUL or a lone surrogate"
        )
    return item
