"""Which prompts can be answered well: a small classifier that is trained on labels.

ChatGLM-RLHF (arXiv 2404.00934, section 2) filters prompts by whether their intention is clear,
their semantics are clear, and they can be answered. Ours: logistic regression on n-grams of
characters, which needs a few hundred labels and no language's rules.
"""

import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glm_jax.data.records import Prompt
from glm_jax.errors import InputError

FEATURES = 2**14  # n-grams are hashed, so that nothing but weights need be kept
NGRAMS = (1, 5)
FOLDS = 5


class QualityClassifier(NamedTuple):
    """Dims: F features, K kinds of prompts."""

    kinds: tuple[str, ...]
    weights_FxK: np.ndarray
    bias_K: np.ndarray


def train(prompts: Sequence[Prompt]) -> QualityClassifier:
    """Learns the prompts' `quality`. Raises InputError where one has none, or all are the same."""
    labels = _labels(prompts)
    kinds = _check_kinds(labels)
    fitted = _regression().fit(_features(prompts), labels)
    weights_KxF, bias_K = fitted.coef_, fitted.intercept_
    if len(kinds) == 2:  # the second against the first
        weights_KxF, bias_K = np.vstack([-weights_KxF, weights_KxF]), np.append(-bias_K, bias_K)
    return QualityClassifier(tuple(kinds), weights_KxF.T.astype(np.float32), bias_K)


def predict(classifier: QualityClassifier, prompts: Sequence[Prompt]) -> list[str]:
    """The likeliest kind of each prompt."""
    if not prompts:
        return []
    logits_NxK = _features(prompts) @ classifier.weights_FxK + classifier.bias_K
    return [classifier.kinds[k] for k in np.argmax(logits_NxK, axis=1)]


def cross_validated(prompts: Sequence[Prompt]) -> dict[str, float]:
    """Accuracy on prompts that were not trained on, five folds: of "all", and of each kind."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    labels = np.array(_labels(prompts))
    _check_kinds(labels.tolist())
    kind, rarest = Counter(labels.tolist()).most_common()[-1]
    if rarest < FOLDS:
        raise InputError(f"{rarest} prompts are labelled {kind!r}; at least {FOLDS} are needed")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    right = cross_val_predict(_regression(), _features(prompts), labels, cv=folds) == labels
    kinds = {str(kind): float(right[labels == kind].mean()) for kind in sorted(set(labels))}
    return {"all": float(right.mean()), **kinds}


def save(classifier: QualityClassifier, folder: str | Path) -> None:
    """Writes classifier.json and weights.npz, which hold nothing that could run."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        folder / "weights.npz", weights=classifier.weights_FxK, bias=classifier.bias_K
    )
    told = {"kinds": classifier.kinds, "features": FEATURES, "ngrams": NGRAMS}
    (folder / "classifier.json").write_text(json.dumps(told) + "\n")


def load(folder: str | Path) -> QualityClassifier:
    """What `save` wrote. Raises InputError where it is not there, or is of another kind."""
    folder = Path(folder)
    try:
        told = json.loads((folder / "classifier.json").read_text())
        with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
            weights_FxK, bias_K = arrays["weights"], arrays["bias"]
        kinds, same = tuple(told["kinds"]), (told["features"], told["ngrams"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder}: no classifier of prompts: {error}") from None
    expected = (FEATURES, len(kinds))
    if same != (FEATURES, list(NGRAMS)) or (*weights_FxK.shape, *bias_K.shape) != (
        *expected, len(kinds),
    ):  # fmt: skip
        raise InputError(f"{folder}: a classifier of other features; train it again")
    return QualityClassifier(kinds, weights_FxK, bias_K)


def _check_kinds(labels: Sequence[str]) -> list[str]:
    """The kinds there are, in order: at least two."""
    kinds = sorted(set(labels))
    if len(kinds) < 2:
        raise InputError(f"all prompts are labelled {kinds[0]!r}; at least two kinds are needed")
    return kinds


def _labels(prompts: Sequence[Prompt]) -> list[str]:
    missing = next((prompt.id for prompt in prompts if prompt.quality is None), None)
    if missing is not None or not prompts:
        raise InputError(f"field 'quality' is missing in the prompt {missing!r}")
    return [str(prompt.quality) for prompt in prompts]


def _features(prompts: Sequence[Prompt]):
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        analyzer="char_wb", ngram_range=NGRAMS, n_features=FEATURES, alternate_sign=False
    )
    return vectorizer.transform([prompt.prompt[-1]["content"] for prompt in prompts])


def _regression():
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=30.0, class_weight="balanced", max_iter=1000)
