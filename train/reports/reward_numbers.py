"""What a reward model's scores of held-out pairs say of it.

Dims: N pairs. A margin is the score of the chosen response less that of the rejected one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import exp
from typing import Any

import numpy as np

from glm_jax.data.pair_table import NONE, TOTAL, group_name
from glm_jax.data.records import Pair, draw
from glm_jax.train.reports.scored_pairs import Columns, ScoredPair
from glm_jax.train.statistics import accuracy, correlation

GAPS = 4  # buckets of length difference, by quantiles
BINS = 10  # of the calibration curve, even steps of the probability
MISTAKES = 20
TEXT = 1200  # characters of each text of a mistake


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
        array = np.array([name or NONE for name in names], object)
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
    names = np.array([group_name(pair.category) for pair in pairs], object)
    low, high = np.quantile(every, [0.002, 0.998])
    edges = np.linspace(low, high if high > low else low + 1, 25)
    parts = {name: np.flatnonzero(names == name) for name in sorted(set(names))}
    return {
        name: {
            side: _distribution(every[rows, column], edges)
            for column, side in enumerate(("chosen", "rejected"))
        }
        for name, rows in {TOTAL: np.arange(len(names)), **parts}.items()
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
