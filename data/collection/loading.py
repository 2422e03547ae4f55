"""Pairs, gold and guidelines into the database of a collection."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from sqlalchemy.orm import Session

from glm_jax.data import records
from glm_jax.data.collection.settings import CollectionConfig


class Loaded(NamedTuple):
    """What was new, and what was not."""

    prompts: int
    responses: int
    pairs: int
    known: int
    "pairs that were there before"
    same: int
    "pairs whose two texts are equal: nothing to compare"


def load_pairs(
    db: Session,
    pairs: Iterable[records.Pair | records.Sample],
    config: CollectionConfig,
    now: float,
) -> Loaded:
    """Pairs to label; of samples, all pairs of a prompt. The same ones again change nothing."""
    raise NotImplementedError


def load_gold(
    db: Session,
    pairs: Iterable[records.Pair],
    config: CollectionConfig,
    now: float,
    *,
    purpose: Literal["gold", "practice"] = "gold",
) -> Loaded:
    """Pairs whose answer is known: to check attention, or for the practice round."""
    raise NotImplementedError


def publish(db: Session, guidelines: str, now: float) -> int:
    """The version of these guidelines (Markdown), a new one if they differ from the last."""
    raise NotImplementedError
