"""A report never shows a reward model's accuracy without that of length alone."""

import numpy as np

from glm_jax.train.evaluation_rewards import Judged, figures


def test_every_accuracy_has_the_length_only_rule_beside_it():
    """Overall and by category; the rule is the one that was fitted, whatever the pairs here say."""
    better, worse = np.array([5, 6, 2, 9, 3, 4]), np.array([4, 4, 4, 9, 6, 8])
    margins = np.array([1.0, -1.0, 2.0, 0.5, 0.1, -0.2])
    judged = Judged(margins, better, worse, ["a", "a", "a", "b", "b", "b"])
    found = figures(judged, dict.fromkeys(("all", "a", "b"), "longer"))
    assert found["accuracy"] == 4 / 6
    assert found["length_only"] == 2.5 / 6  # two longer ones, and one tie for one half
    assert {name: row["length_only"] for name, row in found["by_category"].items()} == {
        "a": 2 / 3,
        "b": 0.5 / 3,
    }
    assert all({"accuracy", "length_only"} <= row.keys() for row in found["by_category"].values())
