"""What the report.json of preference data holds; docs/report.md explains each key."""

from __future__ import annotations

from typing import Annotated, Literal

from glm_jax.train.reports.pipeline_schema import Balance, Block, Interval, Number

Group = Annotated[str, "group"]
When = Annotated[Literal["before", "after"], "when"]


class Source(Block):
    file: str | None = None
    unit: Literal["tokens", "characters"]
    tokenizer: str | None = None
    comparisons: int
    ties: int
    read: int
    seed: int


class Sizes(Block):
    comparisons: int
    prompts: int
    turns: float
    history: float
    prompt: float
    response: float
    chosen: float
    rejected: float


class Longer(Block):
    """How often the longer response is the better one, among pairs of unequal length."""

    share: Number
    ci95: Interval = (None, None)
    n: int


class Bias(Longer):
    equal: int
    length_correlation: Number
    log_length_correlation: Number


class Right(Block):
    """How often a rule is right that sees length alone."""

    accuracy: float
    ci95: Interval
    n: int


class Gap(Block):
    low: int
    high: int
    before: Longer
    after: Longer


class Described(Block):
    sizes: dict[Group, Sizes]
    bias: dict[When, dict[Group, Bias]]
    gaps: list[Gap]


class DataReport(Described):
    kind: Literal["data"] = "data"
    title: str
    source: Source
    balance: Balance
    pooled: dict[Group, int]
    length_model: dict[When, Right]
