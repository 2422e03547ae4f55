"""How often something holds of all judgements, and of each person's, with intervals."""

from typing import Any, NamedTuple

import numpy as np

from glm_jax.data.agreement import wilson
from glm_jax.data.collection.figures.judged import Judged


class Measured(NamedTuple):
    of_all: dict[str, Any]
    of_each: list[dict[str, Any]]
    "by person, in the order of `Judged.names`"


def measured(which_N: np.ndarray, judged: Judged) -> Measured:
    """How often `which_N` holds of the judgements."""
    people = range(len(judged.names))
    return Measured(
        share(which_N), [share(which_N[judged.person_N == person]) for person in people]
    )


def share(which_N: np.ndarray) -> dict[str, Any]:
    """How often `which_N` holds, with Wilson's 95 % interval; None of nothing."""
    n, k = len(which_N), int(np.sum(which_N))
    if not n:
        return {"share": None, "ci95": None, "n": 0}
    low, high = wilson(k, n)
    return {"share": k / n, "ci95": [max(low, 0.0), min(high, 1.0)], "n": n}
