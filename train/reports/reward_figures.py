"""Which figures the report of a reward model's run has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from glm_jax.data.plots import Panel, Series, curves, histograms, intervals
from glm_jax.train.reports.data_figures import shares
from glm_jax.train.reports.pipeline_schema import Accuracy, Rows
from glm_jax.train.reports.reward_schema import RewardReport

SETS = {"as_they_are": ("as they are", "score"), "balanced": ("balanced", "ppo")}
SIDES = {"chosen": ("better answer", "ppo"), "rejected": ("worse answer", "score")}
CATEGORIES = 12  # largest ones whose scores are drawn


def figures(report: RewardReport) -> dict[str, list[Panel]]:
    """Panels by section; a section without numbers is an empty list."""
    return {
        **{f"data {use}": shares(found, "tokens") for use, found in report.data.items()},
        "accuracy": _some(_accuracies(report)),
        "calibration": _some([_calibration(report)]),
        "scores": _some(_scores(report)),
        "training": _some(_training(report)),
    }


def _some(panels: Iterable[Panel | None]) -> list[Panel]:
    return [panel for panel in panels if panel]


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _accuracies(report: RewardReport) -> Iterable[Panel | None]:
    for title, key in (("By category", "by_category"), ("By language", "by_language")):
        found = {name: getattr(judged, key) for name, judged in report.pairs.items()}
        names = list(dict.fromkeys(name for by in found.values() for name in by))
        if names != ["(none)"]:
            yield _forest(title, names, {s: [by.get(n) for n in names] for s, by in found.items()})
    for name, judged in report.pairs.items():
        rows = {f"{gap.low:,} to {gap.high - 1:,}": gap for gap in judged.by_gap}
        title = f"By difference in tokens, {SETS[name][0]}"
        yield _forest(title, list(rows), {name: list(rows.values())})


def _forest(
    title: str, names: Sequence[str], found: Mapping[str, Sequence[Accuracy | None]]
) -> Panel | None:
    series = []
    for name, rows in found.items():
        label, colour = SETS[name]
        series.append(
            Series(
                label=label,
                colour=colour,
                hollow=name == "as_they_are",
                x=[_points(row and row.accuracy) for row in rows],
                y=[0] * len(rows),
                low=[_points(row and row.ci95[0]) for row in rows],
                high=[_points(row and row.ci95[1]) for row in rows],
            )
        )
    if len(found) == 1:
        rows = next(iter(found.values()))
        alone = [_points(row and row.length_only) for row in rows]
        none = [None] * len(rows)
        series.append(
            Series(
                label="length alone", colour="muted", hollow=True,
                x=alone, y=[0] * len(rows), low=none, high=none,
            )
        )  # fmt: skip
    return intervals(title, names, series, x="accuracy, %", zero=50)


def _calibration(report: RewardReport) -> Panel | None:
    bins = report.calibration.bins
    ends = [0.0, 100.0]
    return curves(
        "Predicted and observed, %",
        [
            Series(label="as predicted", colour="muted", hollow=True, x=ends, y=ends),
            Series(
                label="first answer is better",
                colour="ppo",
                x=[_points(b.predicted) for b in bins],
                y=[_points(b.observed) for b in bins],
                low=[_points(b.ci95[0]) for b in bins],
                high=[_points(b.ci95[1]) for b in bins],
            ),
        ],
        x="predicted that the first answer is better, %",
    )


def _scores(report: RewardReport) -> Iterable[Panel | None]:
    sized = sorted(report.scores.items(), key=lambda item: (item[0] != "all", -_pairs(item[1])))
    names = [name for name, _ in sized]
    yield intervals(
        "Median score, and the middle 90 %",
        names,
        [
            Series(
                label=label,
                colour=colour,
                hollow=side == "rejected",
                x=[by[side].p50 for _, by in sized],
                y=[0] * len(sized),
                low=[by[side].p5 for _, by in sized],
                high=[by[side].p95 for _, by in sized],
            )
            for side, (label, colour) in SIDES.items()
        ],
        x="score",
    )
    for name, by in sized[: CATEGORIES + 1] if len(sized) > 2 else sized[:1]:
        series = [
            Series(label=label, colour=colour, x=h.edges, y=h.counts)
            for side, (label, colour) in SIDES.items()
            if (h := by[side].histogram)
        ]
        yield histograms(f"{name}, % of the answers", series, x="score")


def _pairs(by: Mapping) -> int:
    return by["chosen"].n


def _training(report: RewardReport) -> Iterable[Panel | None]:
    for title, rows in (
        ("Level of the scores, and their spread", report.training),
        ("The same on held-out pairs", report.evaluations),
    ):
        yield curves(title, [level(rows)], x="step")
    losses = [
        _metric(report.evaluations, "loss", "as they are", "score", hollow=True),
        _metric(report.evaluations, "balanced_loss", "balanced"),
    ]
    yield curves("Ranking loss on held-out pairs", losses, x="step", marks=True)
    for name in ("loss", "accuracy", "margin"):
        series = _metric(report.training, name, name)
        yield curves(f"{name.capitalize()} in training", [series], x="step")


def level(rows: Rows) -> Series:
    """The mean score, and a standard deviation to either side."""

    def end(sign: int) -> list[float | None]:
        known = [(row.get("score"), _spread(row)) for row in rows]
        return [None if None in pair else pair[0] + sign * pair[1] for pair in known]

    mean = _metric(rows, "score", "mean score", "score")
    return replace(mean, low=end(-1), high=end(1))


def _spread(row: Mapping[str, float]) -> float | None:
    """The standard deviation of the scores; a step says the root of their mean square instead."""
    if "score_spread" in row or not {"score", "score_size"} <= row.keys():
        return row.get("score_spread")
    return max(row["score_size"] ** 2 - row["score"] ** 2, 0.0) ** 0.5


def _metric(rows: Rows, name: str, label: str, colour: str = "ppo", hollow: bool = False) -> Series:
    steps = [row.get("step", i) for i, row in enumerate(rows)]
    values = [row.get(name) for row in rows]
    return Series(label=label, colour=colour, hollow=hollow, x=steps, y=values)
