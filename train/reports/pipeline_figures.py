"""Which figures a report has: from the numbers of report.json to panels."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from glm_jax.data.plots import Panel, Series, curves, histograms, intervals
from glm_jax.train.reports.pipeline_schema import PPO, Report, Reward, Rows

MODELS = {"sft": "SFT", "dpo": "DPO", "ppo": "PPO"}
MODES = {"greedy": "greedy", "sampled": "temperature 1"}
COMPARISONS = {
    "ppo_vs_sft": "PPO against SFT",
    "dpo_vs_sft": "DPO against SFT",
    "ppo_vs_dpo": "PPO against DPO",
}
PPO_METRICS = {  # title: {metric: label}
    "Reward of an answer": {
        "objective/scores": "score",
        "objective/rlhf_reward": "less reference and KL penalty",
    },
    "KL to the reference, nats an answer": {"objective/kl": "KL"},
    "Length of an answer, tokens": {"length": "length"},
    "Share of clipped ratios": {"policy/clipfrac_avg": "clip fraction"},
    "Value loss": {"loss/value_avg": "value loss"},
    "Explained variance of the critic": {"val/explained_variance": "explained variance"},
}
TRAINING = {"sft": "Supervised fine-tuning", "reward_training": "Reward model", "dpo": "DPO"}


def figures(report: Report) -> dict[str, list[Panel]]:
    """Panels by section; a section without numbers is an empty list."""
    rows = {name: block.train for name in TRAINING if (block := getattr(report, name))}
    return {
        "wins": _some(_net(report, comparison) for comparison in COMPARISONS),
        "by_kl": _curve(report.ppo, "kl") if report.ppo else [],
        "by_iteration": _curve(report.ppo, "iteration") if report.ppo else [],
        "ppo": _metrics(report.ppo.train, PPO_METRICS, _alarms(report.ppo)) if report.ppo else [],
        "reward": _some(chain(_by_category(report.reward), _by_gap(report.reward))),
        "filler": _some([_filler(report)]),
        "lengths": _some(_lengths(report, mode) for mode in MODES),
        "training": list(
            chain.from_iterable(
                _metrics(
                    rows[name],
                    {f"{TRAINING[name]}: {m}": {m: m} for m in ("loss", "accuracy", "margin")},
                )
                for name in rows
            )
        ),
    }


def _some(panels: Iterable[Panel | None]) -> list[Panel]:
    return [panel for panel in panels if panel]


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _net(report: Report, comparison: str) -> Panel | None:
    modes = report.wins.get(comparison, {})
    families = list(dict.fromkeys(chain.from_iterable(modes.values())))
    series = []
    for mode, outcomes in modes.items():
        found = [outcomes.get(family) for family in families]
        net, low, high = (
            [_points(getattr(o, key)) if o else None for o in found]
            for key in ("net", "low", "high")
        )
        series.append(
            Series(
                label=MODES[mode],
                colour="ppo" if mode == "greedy" else "muted",
                hollow=mode == "sampled",
                x=net,
                y=[0] * len(net),
                low=low,
                high=high,
            )
        )
    title = f"{COMPARISONS[comparison]}: wins less losses"
    return intervals(title, families, series, x="percentage points")


def _curve(ppo: PPO, x: str) -> list[Panel]:
    """The over-optimisation figure against KL or iteration, the best true utility marked."""
    points = sorted(ppo.curve, key=lambda point: getattr(point, x) or 0.0)
    place = [getattr(point, x) for point in points]
    truth = [(p.utility, at) for p, at in zip(points, place, strict=True) if p.utility is not None]
    best = max(truth, key=lambda pair: pair[0])[1] if truth else None
    against = {"kl": "KL to the reference, nats an answer", "iteration": "iteration"}[x]

    named = _alarms(ppo) if x == "iteration" else []

    def series(key: str, label: str, colour: str, hollow: bool = False) -> Series:
        y = [getattr(point, key) for point in points]
        return Series(label=label, colour=colour, hollow=hollow, x=place, y=y)

    return _some(
        curves(
            f"{title}, by {x if x == 'iteration' else 'KL'}",
            lines,
            x=against,
            marks=True,
            at=best,
            named=named,
        )
        for title, lines in {
            "What is rewarded": [
                series("score", "own reward model", "score"),
                series("heldout_score", "held-out one", "held", hollow=True),
            ],
            "What is wanted": [series("utility", "true utility", "true")],
            "Length, tokens": [series("length", "length of an answer", "muted")],
        }.items()
    )


def _alarms(ppo: PPO) -> list[tuple[float, str]]:
    """Where each alarm rang, and its name in words."""
    return [(float(alarm.iteration), alarm.alarm.replace("_", " ")) for alarm in ppo.alarms]


def _metrics(
    rows: Rows, panels: dict[str, dict[str, str]], named: list[tuple[float, str]] | None = None
) -> list[Panel]:
    steps = [row.get("step", i) for i, row in enumerate(rows)]
    colours = ("ppo", "dpo")
    return _some(
        curves(
            title,
            [
                Series(
                    label=label,
                    colour=colours[i],
                    hollow=i > 0,
                    x=steps,
                    y=[row.get(metric) for row in rows],
                )
                for i, (metric, label) in enumerate(metrics.items())
            ],
            x="step",
            named=named or (),
        )
        for title, metrics in panels.items()
    )


def label_sets(reward: dict[str, Reward]) -> dict[str, dict[str, Reward]]:
    """`<model>_by_<labels>` apart: {labels: {model: numbers}}, in words, truth first."""
    sets: dict[str, dict[str, Reward]] = {}
    for name, numbers in reward.items():
        model, _, labels = name.partition("_by_")
        sets.setdefault(labels.replace("_", " "), {})[model.replace("_", " ")] = numbers
    return dict(sorted(sets.items(), key=lambda item: item[0] != "truth"))


def _accuracy(title: str, names: list[str], models: dict[str, list]) -> Panel | None:
    return intervals(
        title,
        names,
        [
            Series(
                label=model,
                colour="ppo" if model == "balanced" else "muted",
                hollow=model != "balanced",
                x=[_points(row and row.accuracy) for row in rows],
                y=[0] * len(rows),
                low=[_points(row and row.ci95[0]) for row in rows],
                high=[_points(row and row.ci95[1]) for row in rows],
            )
            for model, rows in models.items()
        ],
        x="accuracy, %",
        zero=50,
    )


def _main(models: dict[str, Reward]) -> dict[str, Reward]:
    return {name: models[name] for name in ("balanced", "unbalanced") if name in models}


def _by_category(reward: dict[str, Reward]) -> Iterable[Panel | None]:
    for labels, models in label_sets(reward).items():
        rows = {model: numbers.by_category for model, numbers in _main(models).items()}
        names = list(dict.fromkeys(chain.from_iterable(rows.values())))
        by_model = {m: [found.get(name) for name in names] for m, found in rows.items()}
        yield _accuracy(f"By task, {labels}", names, by_model)


def _by_gap(reward: dict[str, Reward]) -> Iterable[Panel | None]:
    def name(low: float | None, high: float | None) -> str:
        ends = ["…" if end is None else f"{end:g}" for end in (low, high)]
        return " to ".join(ends)

    for labels, models in label_sets(reward).items():
        rows = {
            model: {name(row.low, row.high): row for row in numbers.by_gap}
            for model, numbers in _main(models).items()
        }
        names = list(dict.fromkeys(chain.from_iterable(rows.values())))
        by_model = {m: [found.get(gap) for gap in names] for m, found in rows.items()}
        yield _accuracy(f"By length gap in tokens, {labels}", names, by_model)


def _filler(report: Report) -> Panel | None:
    probes = report.filler_probe
    series = Series(
        label="change of the score",
        colour="score",
        x=[probe.change for probe in probes.values()],
        y=[0] * len(probes),
        low=[probe.ci95[0] for probe in probes.values()],
        high=[probe.ci95[1] for probe in probes.values()],
    )
    names = [name.replace("_", " ") for name in probes]
    return intervals("Change by one filler sentence", names, [series], x="change")


def _lengths(report: Report, mode: str) -> Panel | None:
    found = {m: modes[mode].histogram for m, modes in report.lengths.items() if mode in modes}
    series = [
        Series(label=MODELS[model], colour=model, x=h.edges, y=h.counts)
        for model, h in found.items()
        if h
    ]
    return histograms(f"Answers by length, {MODES[mode]}, %", series, x="tokens")
