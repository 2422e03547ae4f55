"""Batches of pairs: both responses of each in one row of packed texts.

Dims: N pairs, R rows of a batch, W their width, K places for pairs in a row, P prompt tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from glm_jax.data.batches import PairArrays
from glm_jax.data.packing import plan
from glm_jax.data.records import Pair

Array = jax.Array | np.ndarray


class PairBatch(NamedTuple):
    """Rows of packed texts (text, part, position: see `glm_jax.sight.Packed`), and the pairs in
    them: a row has K places, and those without a pair weigh 0."""

    tokens: Int[Array, "R W"]
    text: Int[Array, "R W"]
    part: Int[Array, "R W"]
    position: Int[Array, "R W"]
    ends: Int[Array, "R K 2"]  # columns of the last tokens of chosen and rejected
    margin: Float[Array, "R K"]
    weight: Float[Array, "R K"]


class PairBatches:
    """The batches of a run: `batches[i]` is a function of i, as a source of grain's is.

    `shared`: the prompt of a pair lies in the row once, before both responses; otherwise each has
    its own, as kernels for attention need it.
    """

    def __init__(
        self, arrays: PairArrays, margins_N: np.ndarray, weights_N: np.ndarray, *, batch: int,
        steps: int, seed: int = 0, widths: int = 1, unit: int = 1, shared: bool = True,
    ):  # fmt: skip
        self._arrays, self._margins_N, self._weights_N = arrays, margins_N, weights_N
        self._shared = shared
        self.tokens_N = arrays.chosen_lengths_N + arrays.rejected_lengths_N
        "of both dialogues of each pair"
        self.filled_N = self.tokens_N - shared * arrays.prompt_lengths_N
        "columns that each pair takes"
        self.plan = plan(
            self.filled_N, batch, steps, seed=seed, widths=widths, unit=unit
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.plan.batches)

    def __getitem__(self, i: int) -> PairBatch:
        R, K, W = self.plan.rows, self.plan.places, self.plan.width(i)
        tokens, text, part, position = np.zeros((4, R, W), np.int32)
        ends, (margin, weight) = np.zeros((R, K, 2), np.int32), np.zeros((2, R, K), np.float32)
        for r, pairs in enumerate(self.plan.batches[i]):
            column, texts = 0, 0
            for k, n in enumerate(pairs):
                margin[r, k], weight[r, k] = self._margins_N[n], self._weights_N[n]
                for of_part, (side, found, start) in enumerate(self._pieces(n)):
                    to = slice(column, column := column + len(found))
                    tokens[r, to], text[r, to] = found, texts + 1 + (not self._shared) * of_part
                    part[r, to] = self._shared * of_part
                    position[r, to] = np.arange(start, start + len(found))
                    if side is not None:
                        ends[r, k, side] = column - 1
                texts += 1 if self._shared else 2
        return PairBatch(tokens, text, part, position, ends, margin, weight)

    @property
    def padding(self) -> float:
        """The share of all tokens of all batches that are pads."""
        made = self.plan
        area = made.rows * sum(made.width(i) for i in range(len(self)))
        filled = sum(self.filled_N[row].sum() for rows in made.batches for row in rows)
        return float(1 - filled / area)

    def _pieces(self, n: int) -> list[tuple[int | None, np.ndarray, int]]:
        """What stands in the row for pair n, one after the other: (side whose end it is, tokens,
        position of the first)."""
        arrays, P = self._arrays, int(self._arrays.prompt_lengths_N[n])
        chosen = arrays.chosen_NxT[n, : arrays.chosen_lengths_N[n]]
        rejected = arrays.rejected_NxT[n, : arrays.rejected_lengths_N[n]]
        if not self._shared:
            return [(0, chosen, 0), (1, rejected, 0)]
        return [(None, chosen[:P], 0), (0, chosen[P:], P), (1, rejected[P:], P)]


def margins_and_weights(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Those of the pairs, 0 and 1 where none is given, [N] float32 each."""
    margins_N = np.array([pair.margin or 0.0 for pair in pairs], np.float32)
    return margins_N, np.array([1.0 if p.weight is None else p.weight for p in pairs], np.float32)
