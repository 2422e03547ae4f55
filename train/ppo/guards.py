"""What stops a PPO run: a broken program, numbers that are not finite, and limits that were set."""

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat

from glm_jax.configuration import configuration
from glm_jax.errors import InputError, RunStopped

# Most that |log ratio| may be before the first update: (the mean, the largest). In float32 sampling
# and training do the same arithmetic; in bfloat16 the old log-probs are the training pass's own.
FIRST_LOG_RATIO = {"float32": (1e-5, 1e-4), "bfloat16": (1e-3, 1e-3)}

Metrics = Mapping[str, float]


@configuration
class GuardsConfig:
    """Limits on an iteration's answers, off unless set; the run stops, its checkpoint saved."""

    max_kl: PositiveFloat | None = None
    "nats a response"
    on_max_kl: Literal["stop", "adapt"] = "stop"
    "adapt: the run goes on, and beta grows by half after each iteration above `max_kl`"
    min_entropy: NonNegativeFloat | None = None
    "nats a token"
    max_length_ratio: PositiveFloat | None = None
    "mean length against the SFT model's, which is that of the first iteration's answers"
    max_truncated: Annotated[float, Field(ge=0, lt=1)] | None = None
    "share of answers cut off at max_new_tokens"

    def __post_init__(self):
        if self.on_max_kl == "adapt" and self.max_kl is None:
            raise InputError("on_max_kl: adapt needs `max_kl`, the nats above which beta grows")


def check_program(i: int, metrics: Metrics, dtype: str | None) -> None:
    """The run's self-check: before an update the ratio of new to old must be 1.

    `dtype`: that of the program, when this is the first iteration since the run was started; None
    later. Raises RunStopped with the likely cause.
    """
    if dtype is not None:
        mean, largest = FIRST_LOG_RATIO[dtype]
        found = metrics["val/first_log_ratio_avg"], metrics["val/first_log_ratio"]
        if not (found[0] < mean and found[1] < largest):
            cause = (
                "temperature, positions or dropout"
                if dtype == "float32"
                else (
                    "temperature, positions, or a compiler that rounds old and new log-probs "
                    "differently; try `compute: float32`"
                )
            )
            raise RunStopped(
                f"self-check: before the first update the log-probs of {dtype} sampling and "
                f"training differ by {found[0]:.2g} on average and {found[1]:.2g} at most "
                f"({mean:g} and {largest:g} allowed): look at {cause}"
            )
    wrong = [name for name, value in metrics.items() if not np.isfinite(value)]
    # an update that was skipped for it is counted: `check_skipped` says when it is too much
    if wrong and not metrics.get("update/skipped"):
        raise RunStopped(f"iteration {i}: not finite: {', '.join(wrong)}")


def check_skipped(i: int, metrics: Metrics, most: int) -> None:
    """Raises RunStopped when more than `most` updates in a row were skipped."""
    if metrics["update/skipped_in_a_row"] > most:
        raise RunStopped(
            f"iteration {i}: the loss or a gradient was not finite in "
            f"{metrics['update/skipped_in_a_row']:.0f} updates in a row ({most} allowed): look at "
            f"the learning rate"
        )


def guard(config: GuardsConfig, i: int, metrics: Metrics, sft_length: float) -> str | None:
    """Raises RunStopped, naming the guard, when an iteration is past its limit.

    Returns, in words, what a guard has done that lets the run go on.
    `sft_length`: mean tokens of the SFT model's answers.
    """
    told = None
    try:
        _check("max_kl", config.max_kl, i, metrics["objective/kl"], "nats of KL a response")
    except RunStopped as error:
        if config.on_max_kl == "stop":
            raise
        told = f"{error}: beta grows from {metrics['objective/kl_coef']:.3g} by half"
    entropy, truncated = metrics["objective/entropy"], metrics["truncated"]
    ratio = metrics["length"] / sft_length
    longer = "times the length of the SFT model's answers"
    _check("min_entropy", config.min_entropy, i, entropy, "nats of entropy a token")
    _check("max_length_ratio", config.max_length_ratio, i, ratio, longer)
    _check("max_truncated", config.max_truncated, i, truncated, "of the answers were cut off")
    return told


def _check(name: str, limit: float | None, i: int, value: float, what: str) -> None:
    if limit is None:
        return
    if value < limit if name.startswith("min") else value > limit:
        raise RunStopped(f"guard {name}: iteration {i}: {value:.3g} {what}; the limit is {limit:g}")
