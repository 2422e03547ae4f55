"""Signs that a policy learns the reward model's faults: told once each, the run goes on.

Every alarm is a function of what the run has logged, so that a resumed run comes to the same ones.
Dims: N answers.
"""

from collections import deque
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from glm_jax.configuration import configuration
from glm_jax.train.progress import console
from glm_jax.train.run_folder import JsonLines, read_rows
from glm_jax.train.statistics import mean_interval

Metrics = Mapping[str, float]


@configuration
class AlarmsConfig:
    """What is told when it is seen; null switches an alarm off."""

    kl: PositiveFloat | None = 4.0
    "nats a response, in an iteration: the budget, which an evaluation must keep to be `best` too"
    scores_apart: PositiveFloat | None = 3.0
    "standard errors by which the held-out score has risen since the second model's was highest"
    length_correlation: PositiveFloat | None = 0.2
    "by which the correlation of score and length in a window is above that in the first window"
    explained_variance: float | None = 0.0
    "of the critic, the mean over a window behind the warm-up: clearly below it"
    window: PositiveInt = 10
    "iterations"
    warmup: NonNegativeInt = 10
    "iterations in which the critic may explain nothing yet"


class Alarms:
    """The alarms of a run in its folder: alarms.jsonl, cut back on opening to before `start`."""

    def __init__(self, folder: Path, config: AlarmsConfig, start: int):
        self._config = config
        self._log = JsonLines(folder / "alarms.jsonl", start)
        self._rung = {row["alarm"] for row in read_rows(folder / "alarms.jsonl")}
        self._explained = deque[float](maxlen=config.window)
        self._first: list[np.ndarray] = []
        self._last = deque[np.ndarray](maxlen=config.window)
        for row in read_rows(folder / "metrics.jsonl"):
            if row["step"] < start:
                self._explain(row)
        answers: dict[int, list[tuple[float, float]]] = {}
        for row in read_rows(folder / "completions.jsonl") if start else []:
            rewarded = row["score"] - row["reference_score"]
            answers.setdefault(row["step"], []).append((rewarded, row["length"]))
        for step in range(start):
            self._remember(np.array(answers[step]))

    def iteration(
        self, i: int, metrics: Metrics, rewarded_N: np.ndarray, lengths_N: np.ndarray
    ) -> None:
        """Looks at an iteration: its scores less the reference scores, and its lengths."""
        config = self._config
        self._explain(metrics)
        self._remember(np.stack([rewarded_N, lengths_N], axis=1))
        kl = metrics["objective/kl"]
        if config.kl is not None and kl > config.kl:
            self._ring(i, "kl", f"KL {kl:.2f} nats a response (alarms.kl is {config.kl:g})")
        if config.length_correlation is not None and i + 1 >= 2 * config.window:
            then, now = (np.concatenate(part) for part in (self._first, list(self._last)))
            before, after, errors = correlation_rise(then, now)
            if after - before > config.length_correlation and errors > 3:
                self._ring(
                    i, "length_correlation",
                    f"score and length correlate by {after:+.2f} over the last {config.window} "
                    f"iterations, by {before:+.2f} over the first",
                )  # fmt: skip
        late = i + 1 >= config.warmup + config.window
        if config.explained_variance is not None and late and self._explained:
            mean, half = mean_interval(np.array(self._explained))
            if mean + half < config.explained_variance:
                self._ring(
                    i, "explained_variance",
                    f"the critic explains {mean:.2f} of the variance of the returns over the last "
                    f"{config.window} iterations: look at its learning rate",
                )  # fmt: skip

    def evaluation(
        self, i: int, scores_N: Mapping[int, np.ndarray], heldout_N: Mapping[int, np.ndarray]
    ) -> None:
        """Looks at the scores of the held-out prompts in every evaluation up to iteration i."""
        if self._config.scores_apart is None or not heldout_N:
            return
        best = max(heldout_N, key=lambda j: (float(np.mean(heldout_N[j])), j))
        gain, error = paired_gain(scores_N[best], scores_N[i])
        if best < i and gain > self._config.scores_apart * error:
            fall = float(np.mean(heldout_N[best]) - np.mean(heldout_N[i]))
            self._ring(
                i, "scores_apart",
                f"since iteration {best} the score of held-out prompts has risen by {gain:.2f} "
                f"(+- {error:.2f}), the second reward model's has fallen by {fall:.2f}",
            )  # fmt: skip

    def close(self) -> None:
        self._log.close()

    def _explain(self, metrics: Metrics) -> None:
        explained = metrics.get("val/explained_variance")  # there is none without a critic
        if explained is not None:
            self._explained.append(explained)

    def _remember(self, answers_Nx2: np.ndarray) -> None:
        answers_Nx2 = answers_Nx2[np.isfinite(answers_Nx2).all(axis=1)]
        if len(self._first) < self._config.window:
            self._first.append(answers_Nx2)
        self._last.append(answers_Nx2)

    def _ring(self, i: int, name: str, message: str) -> None:
        if name not in self._rung:
            self._rung.add(name)
            self._log.write({"step": i, "alarm": name, "message": message})
            console.print(f"alarm {name}: iteration {i}: {message}", style="bold red")


def correlation_rise(then_Nx2: np.ndarray, now_Nx2: np.ndarray) -> tuple[float, float, float]:
    """Pearson's correlation of two columns then and now, and the rise in standard errors.

    The errors are those of Fisher's z = atanh(r), 1 / sqrt(N - 3) each. Where a column does not
    vary the correlation is 0.
    """
    r = [_correlation(rows) for rows in (then_Nx2, now_Nx2)]
    error = sum(1 / max(len(rows) - 3, 1) for rows in (then_Nx2, now_Nx2)) ** 0.5
    before, after = np.arctanh(np.clip(r, -0.999999, 0.999999))
    return r[0], r[1], float((after - before) / error)


def paired_gain(before_N: np.ndarray, after_N: np.ndarray) -> tuple[float, float]:
    """Mean of after - before, prompt by prompt, and its standard error."""
    gains_N = after_N - before_N
    spread = float(np.std(gains_N, ddof=1)) if len(gains_N) > 1 else 0.0
    return float(np.mean(gains_N)), spread / len(gains_N) ** 0.5


def _correlation(rows_Nx2: np.ndarray) -> float:
    x, y = (rows_Nx2 - rows_Nx2.mean(axis=0)).T
    scale = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    return float(np.sum(x * y)) / scale if scale > 0 else 0.0
