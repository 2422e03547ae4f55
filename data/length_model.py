"""What length alone tells: boosted trees that guess the better response without reading it.

A reward model that is not clearly better than these has learned little besides length. Every pair
is shown in both orders and the two guesses are averaged, so that exchanging the responses turns
the guess around, and half of the labels are "the first" by construction. Dims: N pairs.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

FOLDS = 5
CATEGORIES = 254  # values of one field that the trees can tell apart; rarer ones count as missing


class PairLengths(NamedTuple):
    """What the model sees of N pairs, and nothing else."""

    chosen_N: np.ndarray
    rejected_N: np.ndarray
    categories: Sequence[str | None]
    languages: Sequence[str | None]

    def take(self, rows: np.ndarray) -> "PairLengths":
        return PairLengths(
            self.chosen_N[rows],
            self.rejected_N[rows],
            [self.categories[row] for row in rows],
            [self.languages[row] for row in rows],
        )


class LengthModel(NamedTuple):
    trees: Any
    category_codes: dict[str, int]
    language_codes: dict[str, int]

    def probabilities(self, pairs: PairLengths) -> np.ndarray:
        """Float [N]: how likely the chosen response is the better one, lengths being equal 1/2."""
        forward_N, backward_N = (
            self.trees.predict_proba(features)[:, 1]
            for features in _both_orders(pairs, self.category_codes, self.language_codes)
        )
        return 0.5 + (forward_N - backward_N) / 2  # exactly 1/2 where the lengths are equal


def fit(pairs: PairLengths) -> LengthModel:
    """Gradient-boosted trees on both lengths, their difference and ratio, category and language."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    codes = _codes(pairs.categories), _codes(pairs.languages)
    forward, backward = _both_orders(pairs, *codes)
    first = np.ones(len(forward), bool)
    # early stopping would be decided by pairs whose other order was trained on
    trees = HistGradientBoostingClassifier(
        categorical_features=[4, 5], early_stopping=False, random_state=0
    )
    trees.fit(np.concatenate([forward, backward]), np.concatenate([first, ~first]))
    return LengthModel(trees, *codes)


def cross_validated(
    pairs: PairLengths, prompts_N: np.ndarray, folds: int = FOLDS, seed: int = 0
) -> np.ndarray:
    """Float [N]: probability of each chosen response by a model fitted on the other folds.

    `prompts_N`: integers, equal for pairs of one prompt, which share a fold. Pairs that no other
    fold can tell anything about get 1/2.
    """
    names, member_N = np.unique(prompts_N, return_inverse=True)
    fold_N = (np.random.default_rng(seed).permutation(len(names)) % folds)[member_N]
    probability_N = np.full(len(fold_N), 0.5)
    for fold in range(folds):
        inside, others = np.flatnonzero(fold_N == fold), np.flatnonzero(fold_N != fold)
        if len(inside) and len(others):
            probability_N[inside] = fit(pairs.take(others)).probabilities(pairs.take(inside))
    return probability_N


def _both_orders(
    pairs: PairLengths, category_codes: dict[str, int], language_codes: dict[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Features with the chosen response first, and with the rejected one first, [N, 6] each."""
    category_N = np.array([category_codes.get(name, np.nan) for name in pairs.categories], float)
    language_N = np.array([language_codes.get(name, np.nan) for name in pairs.languages], float)
    chosen_N, rejected_N = pairs.chosen_N.astype(float), pairs.rejected_N.astype(float)
    return tuple(
        np.column_stack([a, b, a - b, np.log((a + 1) / (b + 1)), category_N, language_N])
        for a, b in ((chosen_N, rejected_N), (rejected_N, chosen_N))
    )


def _codes(names: Sequence[str | None]) -> dict[str, int]:
    counts = Counter(name for name in names if name is not None)
    common = sorted(counts, key=lambda name: (-counts[name], name))[:CATEGORIES]
    return {name: code for code, name in enumerate(common)}
