"""How good the policies are, on held-out prompts, by whatever judges them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glm_jax.data.records import Sample
from glm_jax.train.statistics import histogram, outcome

COMPARISONS = ("ppo", "sft"), ("dpo", "sft"), ("ppo", "dpo")
MODES = "greedy", "sampled"
Answers = Mapping[tuple[str, str], Sequence[Sample]]  # by (model, mode), prompts in one order
Values = Mapping[tuple[str, str], np.ndarray]


def wins(values: Values, groups: Sequence[str]) -> dict[str, Any]:
    """Win, tie and lose, prompt by prompt, overall and by category."""
    return {
        f"{a}_vs_{b}": {
            mode: {
                name: outcome(values[a, mode][rows], values[b, mode][rows])
                for name, rows in _members(groups).items()
            }
            for mode in MODES
        }
        for a, b in COMPARISONS
    }


def means(values: Values, groups: Sequence[str]) -> dict[str, Any]:
    """Mean values by model, mode and category."""
    members, result = _members(groups), {}
    for (model, mode), values_N in values.items():
        row = {name: float(np.mean(values_N[rows])) for name, rows in members.items()}
        result.setdefault(model, {})[mode] = row
    return result


def lengths(answers: Answers, limit: int) -> dict[str, Any]:
    """Tokens of the answers, and the share that was cut off."""
    result: dict[str, Any] = {}
    for (model, mode), samples in answers.items():
        lengths_N = np.array([len(sample.tokens) for sample in samples])
        result.setdefault(model, {})[mode] = {
            "mean": float(np.mean(lengths_N)),
            "truncated": float(np.mean([sample.finish == "length" for sample in samples])),
            "histogram": histogram(lengths_N, limit),
        }
    return result


def side_by_side(
    answers: Answers, scores: Values, utilities: Values | None, count: int = 12
) -> list[dict[str, Any]]:
    """The first greedy answers of each category in turn."""
    models = ("sft", "dpo", "ppo")
    samples = {model: answers[model, "greedy"] for model in models}
    by_category: dict[str, list[int]] = {}
    for i, sample in enumerate(samples["sft"]):
        by_category.setdefault(str(sample.category), []).append(i)
    turns = max(len(rows) for rows in by_category.values())
    chosen = [rows[t] for t in range(turns) for rows in by_category.values() if t < len(rows)]
    return [
        {
            "category": samples["sft"][i].category,
            "prompt": "\n".join(m["content"] for m in samples["sft"][i].prompt),
            **{model: samples[model][i].text for model in models},
            "score": {model: float(scores[model, "greedy"][i]) for model in models},
            "utility": {model: float(utilities[model, "greedy"][i]) for model in models}
            if utilities
            else {},
        }
        for i in chosen[:count]
    ]


def _members(groups: Sequence[str]) -> dict[str, np.ndarray]:
    names = np.array(groups, object)
    members = {"all": np.arange(len(names))}
    return members | {name: np.flatnonzero(names == name) for name in sorted(set(groups))}
