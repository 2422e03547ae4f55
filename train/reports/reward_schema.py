"""What the report.json of a reward model's run holds; docs/report.md explains each key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from glm_jax.train.reports.data_schema import Described
from glm_jax.train.reports.pipeline_schema import (
    Accuracy,
    Block,
    Histogram,
    Interval,
    Number,
    Rows,
)

Labels = Annotated[Literal["as_they_are", "balanced"], "pairs"]
Use = Annotated[Literal["training", "held_out"], "use"]
Name = Annotated[str, "name"]
Side = Annotated[Literal["chosen", "rejected"], "side"]


class Gap(Accuracy):
    low: int
    high: int


class Judged(Accuracy):
    loss: Number
    length_only_ci95: Interval = (None, None)
    length_correlation: Number
    log_length_correlation: Number
    by_category: dict[Name, Accuracy]
    by_language: dict[Name, Accuracy]
    by_gap: list[Gap]


class Bin(Block):
    low: float
    high: float
    predicted: float
    observed: float
    ci95: Interval
    n: int


class Calibration(Block):
    error: float
    bins: list[Bin]


class Scores(Block):
    mean: float
    spread: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    n: int
    histogram: Histogram


class Mistake(Block):
    id: str
    category: str | None = None
    language: str | None = None
    probability: float
    chosen_score: float
    rejected_score: float
    chosen_tokens: int
    rejected_tokens: int
    prompt: str | None = None
    chosen: str | None = None
    rejected: str | None = None


class Kept(Block):
    step: int
    steps: int


class RewardReport(Block):
    kind: Literal["reward"] = "reward"
    title: str
    config: dict[str, Any]
    length_only_fit: Literal["training_pairs", "held_out_folds"]
    data: dict[Use, Described] = Field(default_factory=dict)
    pairs: dict[Labels, Judged]
    calibration: Calibration
    scores: dict[Name, dict[Side, Scores]]
    kept: Kept | None = None
    training: Rows
    evaluations: Rows
    mistakes: list[Mistake]
