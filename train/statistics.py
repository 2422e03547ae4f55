"""The statistics of the report, each with its 95 % interval."""

from typing import Any

import numpy as np

Z95 = 1.959964


def outcome(ours_N: np.ndarray, theirs_N: np.ndarray) -> dict[str, float | int]:
    """Wins, ties and losses of paired numbers, as shares; `net` is wins minus losses.

    [low, high] is the normal interval of the mean of N independent values of +1, 0 and -1.
    """
    signs_N = np.sign(np.round(ours_N - theirs_N, 9))
    net, half = mean_interval(signs_N)
    return {
        "win": float(np.mean(signs_N > 0)),
        "tie": float(np.mean(signs_N == 0)),
        "lose": float(np.mean(signs_N < 0)),
        "net": net,
        "low": net - half,
        "high": net + half,
        "n": len(signs_N),
    }


def mean_interval(values_N: np.ndarray) -> tuple[float, float]:
    """The mean, and half the width of its 95 % normal interval."""
    spread = float(np.std(values_N, ddof=1)) if len(values_N) > 1 else 0.0
    return float(np.mean(values_N)), Z95 * spread / len(values_N) ** 0.5


def accuracy(margins_N: np.ndarray) -> dict[str, Any]:
    """The share of positive margins, zero counting one half, with its Wilson interval."""
    n = len(margins_N)
    share = float(np.mean((margins_N > 0) + 0.5 * (margins_N == 0)))
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * (share * (1 - share) / n + Z95**2 / (4 * n**2)) ** 0.5 / (1 + Z95**2 / n)
    return {"accuracy": share, "ci95": [centre - half, centre + half], "n": n}


def correlation(x_N: np.ndarray, y_N: np.ndarray) -> float | None:
    """sum(x y) / sqrt(sum(x^2) sum(y^2)) of differences: which side came first does not matter."""
    scale = float(np.sqrt(np.sum(np.square(x_N)) * np.sum(np.square(y_N))))
    return float(np.sum(x_N * y_N)) / scale if scale else None


def histogram(lengths_N: np.ndarray, limit: int, bins: int = 18) -> dict[str, list[float]]:
    """Counts of lengths in at most `bins` even steps from 0 to the limit."""
    step = -(-limit // bins)
    edges = np.arange(0, limit + step, step)
    counts, _ = np.histogram(lengths_N, bins=edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
