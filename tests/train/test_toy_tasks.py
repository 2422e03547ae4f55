"""PPO on tasks whose best answer is known, with a function as the reward: three seeds each."""

import runpy
from pathlib import Path

import numpy as np
import pytest

TASKS = runpy.run_path(str(Path(__file__).parents[2] / "examples/toy_tasks.py"))
train, bandit, copying = TASKS["train"], TASKS["bandit"], TASKS["copying"]


def reached(metrics, goal: float) -> bool:
    """Whether five iterations in a row have this mean score: one alone may be luck."""
    last = []
    for found in metrics:
        last = [*last[-4:], found["objective/scores"]]
        if len(last) == 5 and np.mean(last) >= goal:
            return True
    return False


@pytest.mark.parametrize("seed", range(3))
def test_a_bandit_is_solved_within_100_iterations(seed):
    config = bandit()
    assert config.iterations == 100
    assert reached(train(config, TASKS["share_of_one_token"], 1, seed), 0.95)


@pytest.mark.parametrize("seed", range(3))
def test_a_large_kl_coefficient_holds_the_bandit_where_it_was(seed):
    """At the same learning rate, over all 100 iterations."""
    config = bandit(kl_coefficient=10.0)
    found = list(train(config, TASKS["share_of_one_token"], 1, seed))
    assert len(found) == 100 and max(row["objective/kl"] for row in found) < 0.05
    assert max(row["objective/scores"] for row in found) < 0.4


@pytest.mark.parametrize("seed", range(3))
def test_copying_is_learned_within_300_iterations(seed):
    config = copying()
    assert config.iterations == 300 and config.sampling.max_new_tokens == 4
    assert reached(train(config, TASKS["share_copied"], 2, seed), 0.9)
