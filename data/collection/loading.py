"""Pairs and gold into the database of a collection."""

from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from glm_jax.data.collection.batch import Batch, Item
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import analysed, can_be_kept, handing_out
from glm_jax.data.collection.tables import Pair, Person, Prompt, Purpose, Response
from glm_jax.data.records import Sample
from glm_jax.errors import InputError

AT_ONCE = 500  # pairs or samples that are in memory


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


def _load(db: Session, items: Iterable[Item], config: CollectionConfig, purpose: Purpose) -> Loaded:
    handing_out(db)
    before = last = db.scalar(select(func.max(Pair.id))) or 0
    prompts = responses = same = 0
    known: set[int] = set()
    rest = map(_check, items)
    while some := list(islice(rest, AT_ONCE)):
        batch = Batch(db, some, config, purpose, last)
        batch.insert()
        prompts += len(batch.rows[Prompt])
        responses += len(batch.rows[Response])
        last += len(batch.rows[Pair])
        known |= {number for number in batch.named if number <= before}
        same += batch.same
    added = last - before
    if added:  # some of them before the places that people have come to
        db.execute(update(Person).values(reached=-1))
    if added > before:  # a model's few at a time change no plan
        analysed(db)
    return Loaded(prompts, responses, added, len(known), same)


def _answered(purpose: Purpose, item: Item) -> Item:
    if isinstance(item, Sample):
        raise InputError(
            f"{item.id!r}: {purpose} needs pairs with `chosen` and `rejected`, and this is a sample"
        )
    return item


def _check(item: Item) -> Item:
    """Raises InputError for what the databases cannot hold, or even be asked for."""
    texts = [item.id, item.category, *(message["content"] for message in item.prompt)]
    if isinstance(item, Sample):
        texts += [item.text]
    else:
        texts += [item.chosen, item.chosen_id, item.rejected, item.rejected_id]
        texts += [item.prompt_id, item.language]
    if not all(can_be_kept(text) for text in texts if text is not None):
        raise InputError(
            f"{item.id!r}: a text has a character that cannot be kept: NUL or a lone surrogate"
        )
    return item
