"""Held-out records: whatever begins alike lies on one side."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from glm_jax.data.pair_table import PairTable, opening
from glm_jax.data.records import Dialogue, Pair, Prompt, draw
from glm_jax.errors import InputError

Record = TypeVar("Record", Prompt, Dialogue, Pair)


def hold_out(
    records: Sequence[Record], share: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """Training and held-out records, split by the first user message.

    So pairs of one prompt stay together, and a dialogue's later turns with it. About `share` of
    the first messages are held out; which ones, depends on them and the seed alone.
    """
    below = _below(share)
    training: list[Record] = []
    held_out: list[Record] = []
    for record in records:
        (held_out if draw(seed, opening(record.prompt)) < below else training).append(record)
    return training, held_out


def held_out_rows(table: PairTable, share: float) -> np.ndarray:
    """Bool [N]: what `hold_out` holds out with the seed that the table was made with."""
    below = _below(share)
    return np.ones(len(table), bool) if below >= 2**64 else table.openings < np.uint64(below)


def _below(share: float) -> int:
    if not 0 <= share <= 1:
        raise InputError(f"the share held out is from 0 to 1, got {share}")
    return math.ceil(share * 2**64)
