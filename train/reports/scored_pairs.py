"""Held-out pairs with the scores of a reward model: what `scores.jsonl` of its run holds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from glm_jax.data.length_model import PairLengths
from glm_jax.errors import InputError

FILE = "scores.jsonl"


class ScoredPair(BaseModel):
    """A line of the file. The texts may stand in it or be handed to the report."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    row: int = 0
    "its place among the held-out pairs, from 0; the line's if the file does not say"
    id: str
    category: str | None = None
    language: str | None = None
    balanced: bool
    chosen_score: float
    rejected_score: float
    chosen_tokens: int
    rejected_tokens: int
    prompt_tokens: int
    turns: int


class Columns(NamedTuple):
    """The same, N pairs by columns."""

    margins_N: np.ndarray  # score of the chosen response less that of the rejected one
    lengths: PairLengths
    balanced_N: np.ndarray

    def take(self, rows: np.ndarray) -> Columns:
        return Columns(self.margins_N[rows], self.lengths.take(rows), self.balanced_N[rows])


def read(folder: str | Path) -> list[ScoredPair]:
    """The lines of a run's file; InputError names the first one that is not such a pair."""
    path = Path(folder) / FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; a reward run writes it at its end") from None
    pairs = []
    for number, line in enumerate(lines, start=1):
        try:
            pair = ScoredPair.model_validate_json(line)
            if "row" not in pair.model_fields_set:
                pair = pair.model_copy(update={"row": number - 1})
            pairs.append(pair)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the line"
            raise InputError(f"{path}:{number}: {field}: {first['msg'].lower()}") from None
    if not pairs:
        raise InputError(f"{path}: no pairs; the report needs held-out ones")
    return pairs


def columns(pairs: list[ScoredPair]) -> Columns:
    return Columns(
        np.array([pair.chosen_score - pair.rejected_score for pair in pairs]),
        PairLengths(
            np.array([pair.chosen_tokens for pair in pairs]),
            np.array([pair.rejected_tokens for pair in pairs]),
            [pair.category for pair in pairs],
            [pair.language for pair in pairs],
        ),
        np.array([pair.balanced for pair in pairs], bool),
    )
