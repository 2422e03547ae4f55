"""The report of a reward model's run, from its scores of held-out pairs.

Dims: N pairs. A margin is the score of the chosen response less that of the rejected one.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from glm_jax.train.reports.reward_numbers import calibration, judged, mistakes, scores
from glm_jax.train.reports.reward_schema import RewardReport
from glm_jax.train.run_folder import read_rows


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
        stay = balance(sizes.chosen_N, sizes.rejected_N, draws_N, sizes.group_codes())
        data["training"] = described(sizes, stay.kept)
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
