"""What report.json holds. docs/report.md explains each key, and a test keeps the two equal.

Every block may be absent; a number may be null where it could not be measured. An unknown key is
an error, so that nothing is written that nobody documented.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict

# The second argument is the name of the level in a key's path, as in `wins.<comparison>.<mode>`.
Category = Annotated[str, "family"]
Mode = Annotated[Literal["greedy", "sampled"], "mode"]
Model = Annotated[Literal["sft", "dpo", "ppo"], "model"]
Comparison = Annotated[Literal["ppo_vs_sft", "dpo_vs_sft", "ppo_vs_dpo"], "comparison"]
RewardSet = Annotated[str, "set"]
RewardModel = Annotated[str, "reward model"]
Annotators = Annotated[Literal["biased", "control"], "annotators"]
Stage = Annotated[str, "stage"]
DataSet = Annotated[str, "data set"]
Reason = Annotated[str, "reason"]
Count = Annotated[str, "count"]
Metric = Annotated[str, "metric"]

Number = float | None
Interval = tuple[Number, Number]
Means = dict[Model, dict[Mode, dict[Category, Number]]]
Rows = list[dict[Metric, Number]]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Environment(Block):
    python: str = ""
    jax: str = ""
    jaxlib: str = ""
    flax: str = ""
    platform: str = ""
    devices: str | int | list[str] = ""
    cores: int | None = None


class Claim(Block):
    claim: str
    holds: bool
    evidence: str = ""


class Outcome(Block):
    win: float
    tie: float
    lose: float
    net: float
    low: Number = None
    high: Number = None
    n: int


class Histogram(Block):
    edges: list[float]
    counts: list[float]


class Lengths(Block):
    mean: Number = None
    truncated: Number = None
    histogram: Histogram | None = None


class Accuracy(Block):
    accuracy: Number
    ci95: Interval = (None, None)
    n: int
    length_only: Number = None


class GapAccuracy(Block):
    low: Number = None
    high: Number = None
    accuracy: Number
    ci95: Interval = (None, None)
    n: int


class Reward(Accuracy):
    length_correlation: Number = None
    truth_length_correlation: Number = None
    by_category: dict[Category, Accuracy] = {}
    by_gap: list[GapAccuracy] = []


class FillerProbe(Block):
    change: Number
    ci95: Interval = (None, None)
    n: int


class Gain(Block):
    gain: float
    ci95: Interval = (None, None)
    n: int


class BalanceRow(Block):
    group: str
    low: Number = None
    high: Number = None
    equal: int = 0
    longer_better: int
    shorter_better: int
    kept: int


class Balance(Block):
    rows: list[BalanceRow] = []
    longer_better_before: Number = None
    longer_better_after: Number = None


class Training(Block):
    train: Rows = []


class Evaluation(Block):
    """One point of the over-optimisation figure."""

    iteration: int
    kl: Number = None
    score: Number = None
    score_minus_reference: Number = None
    heldout_score: Number = None
    utility: Number = None
    length: Number = None
    truncated: Number = None


class Alarm(Block):
    iteration: int
    alarm: str
    message: str


class Best(Block):
    """The policy that a run kept."""

    iteration: int
    by: str
    score: float
    kl: float


class PPO(Training):
    curve: list[Evaluation] = []
    alarms: list[Alarm] = []
    best: Best | None = None
    reference_score: Number = None


class SampleRow(Block):
    category: str | None = None
    prompt: str
    sft: str | None = None
    dpo: str | None = None
    ppo: str | None = None
    utility: dict[Model, Number] = {}
    score: dict[Model, Number] = {}


class Report(Block):
    title: str = "glm-rlhf"
    config: dict[str, Any] = {}
    seed: int | None = None
    environment: Environment | None = None
    timing: dict[Stage, float] = {}
    claims: list[Claim] = []
    wins: dict[Comparison, dict[Mode, dict[Category, Outcome]]] = {}
    wins_by: str = "true utility"
    utility: Means = {}
    score: Means = {}
    heldout_score: Means = {}
    lengths: dict[Model, dict[Mode, Lengths]] = {}
    reward: dict[RewardSet, Reward] = {}
    balancing: dict[Annotators, Gain] = {}
    filler_probe: dict[RewardModel, FillerProbe] = {}
    filters: dict[Reason, int] = {}
    balance: Balance | None = None
    counts: dict[DataSet, dict[Count, int]] = {}
    sft: Training | None = None
    reward_training: Training | None = None
    dpo: Training | None = None
    ppo: PPO | None = None
    samples: list[SampleRow] = []

    @property
    def seconds(self) -> float | None:
        return sum(self.timing.values()) if self.timing else None
