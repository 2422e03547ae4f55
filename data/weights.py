"""What the weight of a pair may be: above 0, and no number that float32 cannot add up."""

import numpy as np

LEAST, MOST = 1e-30, 1e30
EXPECTED = f"expected above 0, from {LEAST:g} to {MOST:g}"


def first_wrong(weights_N: np.ndarray) -> int | None:
    """The first row whose weight cannot be used, None if all can; NaN where none is given."""
    wrong = np.flatnonzero((weights_N < LEAST) | (weights_N > MOST))
    return int(wrong[0]) if len(wrong) else None
