"""How good the reward models are: by truth, by labels, against length alone.

Margins are score differences; dims: N pairs.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glm_jax.data import records
from glm_jax.data.batches import pair_arrays
from glm_jax.data.length_rule import length_only_accuracy, length_only_rule
from glm_jax.data.lengths import response_lengths
from glm_jax.data.proving_ground.task import Task
from glm_jax.data.proving_ground.utility import utility
from glm_jax.data.proving_ground.world import filler_variant
from glm_jax.data.records import Pair, Sample
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.batched import score_pairs, score_samples
from glm_jax.train.preference.pairs import groups_of
from glm_jax.train.statistics import accuracy, correlation, mean_interval

GAPS = 4  # buckets of length difference in the report, by quantiles

Rule = dict[str, str]


class Judged(NamedTuple):
    """Pairs as a model sees them, the side that the labels prefer first."""

    margins_N: np.ndarray
    better_lengths_N: np.ndarray
    worse_lengths_N: np.ndarray
    groups: list[str]
    utilities_N: np.ndarray | None = None  # differences of true utility


def fit_length_rule(pairs: Sequence[Pair], tokenizer: Tokenizer) -> Rule:
    """ "longer" or "shorter" for each group, whichever holds more often in the training pairs."""
    return length_only_rule(*response_lengths(pairs, tokenizer), groups_of(pairs))


def by_labels(model: GLM, tokenizer: Tokenizer, pairs: Sequence[Pair], max_length: int) -> Judged:
    """The pairs as they were labelled; those that are equal within `max_length` are left out."""
    arrays, _ = pair_arrays(pairs, tokenizer, max_length)
    kept = [pairs[row] for row in arrays.rows_N]
    chosen_N, rejected_N = score_pairs(model, arrays)
    return Judged(chosen_N - rejected_N, *response_lengths(kept, tokenizer), groups_of(kept))


def by_truth(model: GLM, tokenizer: Tokenizer, samples: Sequence[Sample]) -> Judged:
    """Samples 0 and 1, 2 and 3, ... of each prompt, by true utility; equal ones are left out."""
    scores, lengths = score_samples(model, tokenizer, samples), _lengths(samples)
    utilities = utilities_of(samples)
    first = np.arange(0, len(samples), 2)
    signs = np.sign(np.round(utilities[first] - utilities[first + 1], 9)).astype(int)
    better, worse = first + (signs < 0), first + (signs > 0)
    better, worse = better[signs != 0], worse[signs != 0]
    return Judged(
        scores[better] - scores[worse], lengths[better], lengths[worse],
        [str(samples[i].category) for i in better], utilities[better] - utilities[worse],
    )  # fmt: skip


def utilities_of(samples: Sequence[Sample]) -> np.ndarray:
    """True utility of each sample, [N]."""
    return np.array(
        [utility(Task.from_record(s.task), s.text, s.finish == "stop") for s in samples]
    )


def figures(judged: Judged, rule: Rule) -> dict[str, Any]:
    """Accuracy overall, by category and by length gap, beside the length-only rule's."""
    better, worse, groups = judged.better_lengths_N, judged.worse_lengths_N, judged.groups
    alone = length_only_accuracy(rule, better, worse, groups)
    gaps_N = np.abs(better - worse)
    names = np.array(groups, object)
    correlations = {"length_correlation": correlation(judged.margins_N, better - worse)}
    if judged.utilities_N is not None:
        truth = correlation(judged.utilities_N, better - worse)
        correlations["truth_length_correlation"] = truth
    edges = np.unique(np.quantile(gaps_N, np.linspace(0, 1, GAPS + 1)).round()).astype(int)
    edges = np.append(edges[:-1], edges[-1] + 1)
    by_gap = []
    for low, high in pairwise(edges):
        inside = (gaps_N >= low) & (gaps_N < high)
        if inside.any():
            row = accuracy(judged.margins_N[inside])
            by_gap.append({"low": int(low), "high": int(high), **row})
    return {
        **accuracy(judged.margins_N),
        "length_only": alone["all"],
        **correlations,
        "by_category": {
            name: {**accuracy(judged.margins_N[names == name]), "length_only": alone[name]}
            for name in sorted(set(groups))
        },
        "by_gap": by_gap,
    }


def gain(ours: Judged, theirs: Judged) -> dict[str, Any]:
    """How much more accurate one model is than another on the same pairs."""
    right = [0.5 + 0.5 * np.sign(judged.margins_N) for judged in (ours, theirs)]
    mean, half = mean_interval(right[0] - right[1])
    return {"gain": mean, "ci95": [mean - half, mean + half], "n": len(right[0])}


def filler_probe(
    models: dict[str, GLM], tokenizer: Tokenizer, samples: Sequence[Sample]
) -> dict[str, Any]:
    """The mean change of score, and of true utility, when one empty sentence is put in."""
    plain = [_rewritten(tokenizer, s, lambda text: text) for s in samples if s.finish == "stop"]
    filled = [_rewritten(tokenizer, s, filler_variant) for s in plain]
    changes = {
        name: score_samples(model, tokenizer, filled) - score_samples(model, tokenizer, plain)
        for name, model in models.items()
    }
    changes["truth"] = utilities_of(filled) - utilities_of(plain)
    return {name: _change(change) for name, change in changes.items()}


def _change(change_N: np.ndarray) -> dict[str, Any]:
    mean, half = mean_interval(change_N)
    return {"change": mean, "ci95": [mean - half, mean + half], "n": len(change_N)}


def _rewritten(tokenizer: Tokenizer, sample: Sample, rewrite: Callable[[str], str]) -> Sample:
    text = rewrite(sample.text)
    tokens = tokenizer.encode_response(text)
    return Sample(
        id=sample.id, sample=sample.sample, prompt=sample.prompt, text=text, tokens=tokens,
        log_probs=[], finish="stop", category=sample.category, task=sample.task,
    )  # fmt: skip


def _lengths(samples: Sequence[Sample]) -> np.ndarray:
    return np.array([len(sample.tokens) for sample in samples])


def read_samples(file: Path) -> list[Sample]:
    return records.read(file, Sample)
