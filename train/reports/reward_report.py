"""The report of a reward model's run, from its scores of held-out pairs.

Dims: N pairs. A margin is the score of the chosen response less that of the rejected one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from glm_jax.data.balance import balance
from glm_jax.data.length_model import cross_validated, fit
from glm_jax.data.numbers import count, percent, span
from glm_jax.data.pair_sizes import measure, sample
from glm_jax.data.records import Pair, draw
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.heldout_pairs import kept
from glm_jax.train.reports import html_page, scored_pairs
from glm_jax.train.reports.data_report import SAMPLE
from glm_jax.train.reports.length_bias import described
from glm_jax.train.reports.pipeline_schema import Rows
from glm_jax.train.reports.reward_figures import figures
from glm_jax.train.reports.reward_schema import RewardReport
from glm_jax.train.reports.scored_pairs import Columns, ScoredPair
from glm_jax.train.run_folder import read_rows
from glm_jax.train.statistics import accuracy, correlation

GAPS = 4  # buckets of length difference, by quantiles
BINS = 10  # of the calibration curve, even steps of the probability
MISTAKES = 20
TEXT = 1200  # characters of each text of a mistake


def reward_report(
    folder: str | Path,
    *,
    training: Sequence[Pair] = (),
    held_out: Sequence[Pair] = (),
    tokenizer: Tokenizer | None = None,
) -> dict[str, Any]:
    """The numbers of docs/report.md, "A reward model's run", from `scores.jsonl`, `metrics.jsonl`,
    `evaluations.jsonl` and `config.yaml` in the folder.

    The length-only baseline is fitted on the lengths of the `training` pairs (of more than 50,000,
    on those with the smallest hashes); without them, in folds of the held-out ones. The texts of
    mistakes come from `held_out`, by place. What lengths are counted by, the `tokenizer`, is the
    reward model's; without one they are characters.
    """
    folder = Path(folder)
    pairs = scored_pairs.read(folder)
    found = scored_pairs.columns(pairs)
    data, balanced = {}, np.flatnonzero(found.balanced_N)
    if training:
        sizes = measure(sample(training, SAMPLE).pairs, tokenizer)
        places_N = np.arange(len(sizes))  # ids may be equal
        draws_N = np.array([draw(0, f"{place}") for place in places_N], np.uint64)
        kept = balance(sizes.chosen_N, sizes.rejected_N, draws_N, sizes.group_codes()).kept
        data["training"] = described(sizes, kept)
        alone_N = fit(sizes.lengths()).probabilities(found.lengths)
    else:
        alone_N = cross_validated(found.lengths, np.arange(len(pairs)))
    if held_out:
        sizes = measure([held_out[pair.row] for pair in pairs], tokenizer)
        data["held_out"] = described(sizes, balanced)
    sets = {"as_they_are": np.arange(len(pairs)), "balanced": balanced}
    config = folder / "config.yaml"
    steps, evaluations = (
        read_rows(folder / f"{name}.jsonl") for name in ("metrics", "evaluations")
    )
    return {
        "kind": "reward",
        "title": f"Reward model: {folder.resolve().name}",
        "config": yaml.safe_load(config.read_text("utf-8")) if config.exists() else {},
        "length_only_fit": "training_pairs" if training else "held_out_folds",
        "data": data,
        "pairs": {
            name: judged(found.take(rows), alone_N[rows] - 0.5)
            for name, rows in sets.items()
            if len(rows)
        },
        "calibration": calibration([pair.row for pair in pairs], found.margins_N),
        "scores": scores(pairs),
        "kept": _kept_step(steps, evaluations),
        "training": steps,
        "evaluations": evaluations,
        "mistakes": mistakes(pairs, held_out),
    }


def judged(found: Columns, alone_N: np.ndarray) -> dict[str, Any]:
    """Accuracy overall, by category, language and length gap; `alone_N`: margins of the trees that
    see length alone."""
    lengths = found.lengths
    difference_N = lengths.chosen_N - lengths.rejected_N
    ratio_N = np.log((lengths.chosen_N + 1) / (lengths.rejected_N + 1))
    gap_N = np.abs(difference_N)

    def right(rows: np.ndarray) -> dict[str, Any]:
        alone = accuracy(alone_N[rows])["accuracy"]
        return {**accuracy(found.margins_N[rows]), "length_only": alone}

    def by(names: Sequence[str | None]) -> dict[str, Any]:
        array = np.array([name or "(none)" for name in names], object)
        return {name: right(np.flatnonzero(array == name)) for name in sorted(set(array))}

    inner = np.quantile(gap_N, np.arange(1, GAPS) / GAPS, method="higher")
    edges = np.unique([gap_N.min(), *inner, gap_N.max() + 1]).astype(int).tolist()
    return {
        **right(np.arange(len(gap_N))),
        "loss": float(np.mean(np.logaddexp(0, -found.margins_N))),
        "length_only_ci95": accuracy(alone_N)["ci95"],
        "length_correlation": correlation(found.margins_N, difference_N),
        "log_length_correlation": correlation(found.margins_N, ratio_N),
        "by_category": by(lengths.categories),
        "by_language": by(lengths.languages),
        "by_gap": [
            {"low": low, "high": high, **right(np.flatnonzero((gap_N >= low) & (gap_N < high)))}
            for low, high in pairwise(edges)
        ],
    }


def calibration(rows: Sequence[int], margins_N: np.ndarray) -> dict[str, Any]:
    """Predicted sigmoid(r_first - r_second) against how often the first is the better one.

    Which response is first is drawn by the pair's row, since ids may be equal: put the better one
    first and every model looks too modest. `error` is the expected calibration error,
    sum_b n_b |observed - predicted| / N.
    """
    swapped_N = np.array([draw(0, f"{row}") & 1 for row in rows], bool)
    predicted_N = _sigmoid(np.where(swapped_N, -margins_N, margins_N))
    bin_N = np.minimum((predicted_N * BINS).astype(int), BINS - 1)
    bins = []
    for b in np.unique(bin_N):
        inside = bin_N == b
        first = accuracy(np.where(swapped_N[inside], -1.0, 1.0))
        bins.append(
            {
                "low": float(b / BINS),
                "high": float((b + 1) / BINS),
                "predicted": float(predicted_N[inside].mean()),
                "observed": first["accuracy"],
                "ci95": first["ci95"],
                "n": first["n"],
            }
        )
    error = sum(b["n"] * abs(b["observed"] - b["predicted"]) for b in bins) / len(rows)
    return {"error": error, "bins": bins}


def scores(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
    """How the scores lie, for "all" and by category, on common bins: the paper's Fig. 3."""
    every = np.array([[pair.chosen_score, pair.rejected_score] for pair in pairs])
    names = np.array([pair.category or "(none)" for pair in pairs], object)
    low, high = np.quantile(every, [0.002, 0.998])
    edges = np.linspace(low, high if high > low else low + 1, 25)
    parts = {name: np.flatnonzero(names == name) for name in sorted(set(names))}
    if "all" in parts:  # a category of that name
        parts["all (category)"] = parts.pop("all")
    return {
        name: {
            side: _distribution(every[rows, column], edges)
            for column, side in enumerate(("chosen", "rejected"))
        }
        for name, rows in {"all": np.arange(len(names)), **parts}.items()
    }


def mistakes(pairs: Sequence[ScoredPair], held_out: Iterable[Pair] = ()) -> list[dict[str, Any]]:
    """The pairs ranked wrongly with the largest margins, the surest first."""
    wrong = [pair for pair in pairs if pair.chosen_score < pair.rejected_score]
    wrong.sort(key=lambda pair: (pair.chosen_score - pair.rejected_score, pair.row))
    wrong = wrong[:MISTAKES]
    wanted = {pair.row for pair in wrong}
    texts = {row: _texts(pair) for row, pair in enumerate(held_out) if row in wanted}
    return [
        {
            **pair.model_dump(exclude={"row", "balanced", "prompt_tokens", "turns"}),
            "probability": 1 / (1 + exp(pair.chosen_score - pair.rejected_score)),
            **texts.get(pair.row, {}),
        }
        for pair in wrong
    ]


def write(folder: str | Path, **given: Any) -> Path:
    """Writes report.json and report.html of a finished run; returns the page's path. What may be
    `given` is what `reward_report` takes."""
    values = reward_report(folder, **given)
    report = html_page.parse(RewardReport, values)
    return html_page.put(folder, report, page(report))


def page(report: RewardReport) -> str:
    """The HTML page of a reward model's run."""
    config = yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True)
    return html_page.render(
        "reward_report.html.j2",
        report=report,
        figures=figures(report),
        summary=summary(report),
        difference=difference(report),
        config=config,
    )


def summary(report: RewardReport) -> list[str]:
    """What the numbers say, in sentences."""
    said = []
    for name, where in (("balanced", "balanced by length"), ("as_they_are", "as they are")):
        if found := report.pairs.get(name):
            alone = percent(found.length_only)
            said.append(
                f"On {found.n:,} held-out pairs {where} the model is right in"
                f" {percent(found.accuracy)} (95 % interval {span(*found.ci95, plus=False)}),"
                f" length alone in {alone}."
            )
    if report.kept:
        said.append(
            f"It is the model after step {count(report.kept.step)} of {count(report.kept.steps)},"
            " the one with the least ranking loss on the balanced pairs."
        )
    return said


def _kept_step(steps: Rows, evaluations: Rows) -> dict[str, int] | None:
    """Which model was kept, where the run's files say it."""
    if not any(row.get("step") and "balanced_loss" in row for row in evaluations):
        return None
    return {"step": kept(evaluations)["step"], "steps": len(steps)}


def difference(report: RewardReport) -> str | None:
    """Why the two accuracies differ, and which to go by."""
    ours = [report.pairs.get(name) for name in ("as_they_are", "balanced")]
    if None in ours:
        return None
    plain, balanced = (found.accuracy for found in ours)
    return (
        f"The same model is right in {percent(plain)} of the pairs as they are and in"
        f" {percent(balanced)} of the balanced ones. The two differ as far as the labels carry the"
        " annotators' liking for length: on pairs as they are a model is paid for sharing it, on"
        " balanced ones the longer answer is no better a guess than the shorter. A model trained on"
        " balanced pairs may therefore score lower on the labels as they are and yet be the better"
        " one: choose by the balanced pairs."
    )


def _distribution(scores_N: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    cut = np.clip(scores_N, edges[0], edges[-1])
    counts, _ = np.histogram(cut, bins=edges)
    points = (5, 25, 50, 75, 95)
    at = np.percentile(scores_N, points)
    return {
        "mean": float(scores_N.mean()),
        "spread": float(scores_N.std()),
        **{f"p{point}": float(value) for point, value in zip(points, at, strict=True)},
        "n": len(scores_N),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _texts(pair: Pair) -> dict[str, str]:
    said = [message["content"] for message in pair.prompt]
    if len(said) > 1:
        said = [f"{m['role']}: {m['content']}" for m in pair.prompt]
    # of a long history the end is what is answered
    prompt = "\n\n".join(said)
    prompt = prompt if len(prompt) <= TEXT else "… " + prompt[-TEXT:]
    return {"prompt": prompt, "chosen": _cut(pair.chosen), "rejected": _cut(pair.rejected)}


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[:TEXT]} … ({len(text) - TEXT:,} characters more)"


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))
