"""Updates at the edges: schedules that end, answers that are all cut off, nothing to learn from."""

import dataclasses

import jax
import numpy as np
import pytest

from glm_jax.data.batches import PairArrays
from glm_jax.data.pair_batches import PairBatches
from glm_jax.sampling import Sampling
from glm_jax.train import dpo, reward_step, sft
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.ppo.iteration import PPOBatch, PPOHyperparameters, init, step
from glm_jax.train.reward_step import Ranking
from glm_jax.train.update import start

B, P, R = 8, 3, 4
CONFIG = PPOHyperparameters(
    sampling=Sampling(max_new_tokens=R, stop_ids=()),
    iterations=2,
    batch_size=B,
    supervised_coefficient=0.0,
    actor=OptimizerConfig(learning_rate=1e-3, schedule="linear"),
    critic=OptimizerConfig(learning_rate=1e-3, schedule="linear"),
)


def batch() -> PPOBatch:
    rng = np.random.default_rng(0)
    tokens, rows = rng.integers(1, 20, (B, P), np.int32), np.arange(B, dtype=np.int32)
    scores = rng.normal(size=B).astype(np.float32)
    return PPOBatch(tokens, np.ones((B, P), bool), rows, scores, None)


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(np.array(leaf)) for leaf in jax.tree.leaves(tree)])


def test_the_learning_rate_falls_with_every_update_of_an_iteration(tiny):
    """To 0 after the four updates of each of two iterations: a third one changes no bit."""
    state = init(CONFIG, tiny(seed=0), tiny(seed=1), tiny("reward", seed=2))
    moved = []
    for _ in range(3):
        before = flat(state.trainable)
        state, _, _ = step(state, batch())
        moved.append(np.abs(flat(state.trainable) - before).max())
    assert CONFIG.updates == 4 and 0 < moved[1] < moved[0]
    assert moved[2] == 0


def test_when_every_answer_is_cut_off_and_none_counts_nothing_breaks(tiny):
    config = dataclasses.replace(
        CONFIG, truncated="mask", whiten_rewards=True, whiten_advantages=True, iterations=9
    )
    state = init(config, tiny(seed=0), tiny(seed=1), tiny("reward", seed=2))
    before = flat(state.trainable)
    state, metrics, _ = step(state, batch())
    assert metrics["truncated"] == 1 and metrics["update/skipped"] == 0
    assert all(np.isfinite(value) for value in metrics.values())
    np.testing.assert_array_equal(flat(state.trainable), before)


@pytest.mark.parametrize("length", [0, 1])
def test_responses_of_no_token_and_of_one_break_no_loss(tiny, length):
    """One row has such a response, the other an ordinary one; then both have such ones."""
    tokens = np.random.default_rng(0).integers(1, 20, (2, 6), np.int32)
    mask = np.arange(6)[None] < np.array([[3 + length], [6]])
    optimiser = optimizer(OptimizerConfig(learning_rate=1e-3), 1)

    def check(rows):
        counted = mask[rows] & (np.arange(6)[None] >= 3)
        supervised = sft.SFTBatch(tokens[rows], mask[rows], counted)
        both = dpo.DPOBatch(*(np.concatenate([x, x]) for x in supervised))
        lengths, one = mask[rows].sum(axis=1), np.ones(2, np.float32)
        sides = tokens[rows], lengths, tokens[rows], lengths
        pairs = PairBatches(PairArrays(*sides, np.full(2, 3), rows), one, one, batch=2, steps=1)[0]
        state = start(tiny(), optimiser)
        for found in (
            sft.step(start(tiny(), optimiser), supervised, optimiser=optimiser),
            reward_step.step(
                start(tiny("reward"), optimiser), pairs, optimiser=optimiser, ranking=Ranking(0.1)
            ),
            dpo.step(state, tiny(), both, optimiser=optimiser, beta=0.1),
        ):
            assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found))
        log_probs = jax.jit(dpo.response_log_probs)(tiny(), both)
        assert (log_probs[0] == 0) == (length == 0)

    check(np.array([0, 1]))
    check(np.array([0, 0]))
