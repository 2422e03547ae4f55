"""The same again: pairs, prompts, and prompts that another split has too."""

from collections.abc import Iterable

import numpy as np

from glm_jax.data.pair_table import PairTable, mixed
from glm_jax.data.votes import repeated


def same_texts(table: PairTable, alive: np.ndarray) -> np.ndarray:
    """Rows whose prompt, chosen and rejected text an earlier pair has, under whatever ids."""
    keys = mixed(table.prompts, table.texts)
    rows = repeated(keys, alive)
    return rows[1:][keys[rows[1:]] == keys[rows[:-1]]]


def beyond(table: PairTable, alive: np.ndarray, max_pairs_per_prompt: int) -> np.ndarray:
    """Rows that are too many for their prompt: those with the lowest draws stay."""
    rows = np.flatnonzero(alive)
    rows = rows[np.lexsort((table.draws[rows], table.prompts[rows]))]
    prompts = table.prompts[rows]
    far = prompts[max_pairs_per_prompt:] == prompts[:-max_pairs_per_prompt]
    return rows[max_pairs_per_prompt:][far]


def leaked(table: PairTable, held_out: Iterable[PairTable]) -> np.ndarray:
    """Bool [N]: the first user message stands in one of the other tables, made with this seed."""
    others = [other.openings for other in held_out]
    return np.isin(table.openings, np.concatenate(others)) if others else np.zeros(len(table), bool)
