"""The rule that looks at length alone: what any reward model has to beat."""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def longer_is_better(
    chosen_lengths: np.ndarray, rejected_lengths: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """The share of pairs whose better response is the longer one; equal lengths count one half.

    NaN where there are no pairs.
    """
    if not len(chosen_lengths):
        return math.nan
    return float(np.average(_agreement(chosen_lengths, rejected_lengths), weights=weights))


def length_only_rule(
    chosen_lengths: np.ndarray, rejected_lengths: np.ndarray, groups: Sequence[str]
) -> dict[str, str]:
    """The better of "longer" and "shorter" for each group of training pairs, and for "all"."""
    agreement = _agreement(chosen_lengths, rejected_lengths)
    return {
        group: "longer" if mean >= 0.5 else "shorter"
        for group, mean in _means(agreement, groups).items()
    }


def length_only_accuracy(
    rule: Mapping[str, str],
    chosen_lengths: np.ndarray,
    rejected_lengths: np.ndarray,
    groups: Sequence[str],
) -> dict[str, float]:
    """What the rule gets right of other pairs, by group and for "all".

    A pair of equal lengths counts one half. A group that the rule was not fitted on is judged by
    the rule for "all".
    """
    agreement = _agreement(chosen_lengths, rejected_lengths)
    longer = np.array([rule.get(group, rule["all"]) == "longer" for group in groups], bool)
    return _means(np.where(longer, agreement, 1 - agreement), groups)


def _agreement(chosen_lengths: np.ndarray, rejected_lengths: np.ndarray) -> np.ndarray:
    """1 where the chosen response is longer, 0 where it is shorter, 0.5 where they are equal."""
    sign = np.sign(np.asarray(chosen_lengths, int) - np.asarray(rejected_lengths, int))
    return (sign + 1) / 2


def _means(values: np.ndarray, groups: Sequence[str]) -> dict[str, float]:
    names = np.array(groups, dtype=object)
    means = {str(group): float(values[names == group].mean()) for group in sorted(set(groups))}
    return {"all": float(values.mean()), **means}
