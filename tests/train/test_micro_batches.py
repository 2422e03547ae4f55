"""How an iteration is cut up changes nothing; only sorting by length makes other minibatches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.data.batches import span_mask
from glm_jax.errors import InputError
from glm_jax.sampling import Sampling
from glm_jax.train import micro_batches
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.iteration import init, step
from glm_jax.train.ppo.scores import PPOBatch
from glm_jax.train.ppo.update import minibatches
from glm_jax.train.sft import SFTBatch

B, P, R = 8, 4, 12
WHOLE = PPOHyperparameters(
    sampling=Sampling(max_new_tokens=R, stop_ids=(1, 2, 3), temperature=0.9),
    iterations=50,
    batch_size=B,
    minibatches=2,
    entropy_coefficient=0.01,
    supervised_coefficient=0.5,
    supervised_batch_size=4,
    # with so large an epsilon Adam's step is in proportion to the gradient: rounding stays small
    actor=OptimizerConfig(learning_rate=0.1, epsilon=1.0),
    critic=OptimizerConfig(learning_rate=0.1, epsilon=1.0),
)


def batch(config=WHOLE):
    rng = np.random.default_rng(0)
    lengths = np.array([1, 2, 3, 4, 4, 4, 1, 3])
    mask = span_mask(P - lengths, np.full(B, P), P)
    tokens = np.where(mask, rng.integers(1, 20, (B, P)), 0).astype(np.int32)
    told = rng.integers(1, 20, (config.updates, 4, 7), np.int32)
    spans = span_mask(np.zeros(4, int), np.array([7, 5, 3, 6]), 7)
    spans = np.broadcast_to(spans, told.shape)
    supervised = SFTBatch(told, spans, spans & (np.arange(7) > 1))
    scores = rng.normal(size=B).astype(np.float32)
    return PPOBatch(tokens, mask, np.arange(B, dtype=np.int32), scores, supervised)


def iteration(tiny, **options):
    config = dataclasses.replace(WHOLE, **options)
    state = init(config, tiny(seed=0), tiny(seed=1), tiny("reward", seed=2))
    return step(state, batch(config))


CUTS = {
    "rollout_rows": 4, "scoring_rows": 2, "update_rows": 1, "widths": 3, "log_prob_chunk": 5,
}  # fmt: skip


@pytest.mark.parametrize("options", [CUTS, {"widths": 4, "rollout_rows": 3, "refill": 2}])
def test_what_is_learned_does_not_depend_on_the_cut(tiny, options):
    whole, expected, completions = iteration(tiny)
    assert len(set(np.asarray(completions.mask).sum(axis=1).tolist())) > 2  # of several lengths
    cut, metrics, again = iteration(tiny, **options)
    np.testing.assert_array_equal(again.tokens, completions.tokens)
    np.testing.assert_allclose(again.scores, completions.scores, atol=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-3, atol=2e-5, err_msg=name)
    moved = init(WHOLE, tiny(seed=0), tiny(seed=1), tiny("reward", seed=2)).trainable
    for a, b, start in zip(
        *map(jax.tree.leaves, (cut.trainable, whole.trainable, moved)), strict=1
    ):
        assert np.abs(a - b).max() <= 1e-3 * np.abs(b - start).max() + 1e-6


def test_rows_come_back_in_their_order_and_wide_ones_are_whole():
    """7 rows would not divide by 2: 6 do; widths 2, 4 and 6."""
    lengths = jnp.array([6, 1, 2, 5, 3, 1])
    rows = jnp.arange(6 * 8.0).reshape(6, 8), jnp.arange(6)
    seen = []

    def function(rows):
        seen.append(rows[0].shape)
        return rows[0][:, 2:] + 1, rows[1]

    widths = micro_batches.widths(6, 3)
    assert widths == (2, 4, 6)
    long, number = jax.jit(
        lambda rows: micro_batches.mapped(function, rows, lengths, 2, widths)
    )(rows)  # fmt: skip
    assert {shape for shape in seen if shape[0] == 2} == {(2, 4), (2, 6), (2, 8)}
    np.testing.assert_array_equal(number, np.arange(6))
    for row, length in enumerate(lengths.tolist()):
        np.testing.assert_array_equal(long[row, :length], rows[0][row, 2 : 2 + length] + 1)


def test_sorted_minibatches_hold_answers_of_like_length_in_another_order_each_epoch():
    config = dataclasses.replace(WHOLE, epochs=6, minibatches=4, sort_by_length=True)
    lengths = jnp.array([9, 1, 5, 9, 1, 5, 2, 9])
    rows = np.asarray(minibatches(jax.random.key(0), lengths, config)).reshape(6, 4, 2)
    orders = set()
    for epoch in rows:
        assert sorted(epoch.ravel().tolist()) == list(range(8))
        pairs = sorted(sorted(np.asarray(lengths)[pair].tolist()) for pair in epoch)
        assert pairs == [[1, 1], [2, 5], [5, 9], [9, 9]]
        orders.add(str(np.asarray(lengths)[epoch].sum(axis=1).tolist()))
    assert len(orders) > 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"minibatches": 3},
        {"rollout_rows": 3},
        {"rollout_rows": 3, "refill": 4},
        {"scoring_rows": 16},
        {"update_rows": 3},
        {"supervised_batch_size": 3, "update_rows": 2},
    ],
)
def test_sizes_that_do_not_divide_are_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        dataclasses.replace(WHOLE, **wrong)
