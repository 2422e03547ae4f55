"""Rollouts of a run: fresh noise each time, and no trace of the room that they are given."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glm_jax.decoding import STOP, rollout, row_keys
from glm_jax.sampling import Sampling
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.ppo.iteration import PPOBatch, PPOHyperparameters, init, step

B, P, R = 8, 3, 6
STILL = OptimizerConfig(learning_rate=0.0)
CONFIG = PPOHyperparameters(
    sampling=Sampling(max_new_tokens=R, temperature=0.9, stop_ids=tuple(range(10))),
    batch_size=B,
    epochs=1,
    supervised_coefficient=0.0,
    actor=OptimizerConfig(learning_rate=1e-3),
)


def prompts() -> PPOBatch:
    tokens = np.random.default_rng(0).integers(4, 20, (B, P), np.int32)
    rows = np.arange(B, dtype=np.int32)
    return PPOBatch(tokens, np.ones((B, P), bool), rows, np.zeros(B, np.float32), None)


def test_every_iteration_of_a_run_draws_anew_and_equal_models_have_no_kl(tiny):
    """Nothing is learned, so only the noise can differ: the same prompts get other answers."""
    config = dataclasses.replace(
        CONFIG, actor=STILL, critic=STILL, sampling=Sampling(max_new_tokens=R, temperature=0.9)
    )
    actor, reward_model = tiny(), tiny("reward", seed=1)
    state, drawn = init(config, actor, actor, reward_model), []
    for _ in range(3):
        state, metrics, completions = step(state, prompts())
        drawn.append(np.asarray(completions.tokens))
        assert jnp.max(jnp.abs(completions.kl)) < 1e-4
        assert abs(metrics["objective/kl"]) < 1e-5
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert not np.array_equal(drawn[a], drawn[b])
    assert len({tuple(row) for tokens in drawn for row in tokens.tolist()}) > 2 * B


def test_rows_on_other_devices_draw_other_noise(tiny):
    """A model without a preference shows the noise itself: the tokens of one device, all unlike."""
    model, sampling = tiny(eos_token_id=(19,)), Sampling(max_new_tokens=12, stop_ids=())
    model.head.set_value(jnp.zeros_like(model.head[...]))
    tokens, rows = jnp.ones((B, P), jnp.int32), jnp.arange(B)

    @partial(jax.jit, static_argnames="sampling")
    def draw(tokens, mask, rows, sampling):
        return rollout(model, tokens, mask, row_keys(jax.random.key(0), rows), sampling).tokens

    expected = draw(tokens, tokens > 0, rows, sampling=sampling)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    sharded = jax.device_put((tokens, tokens > 0, rows), NamedSharding(mesh, PartitionSpec("data")))
    found = draw(*sharded, sampling=sampling)
    assert len(found.sharding.device_set) == 8
    np.testing.assert_array_equal(found, expected)
    assert len({tuple(row) for row in np.asarray(found).tolist()}) == B


def test_room_that_no_answer_needs_changes_no_metric(tiny):
    """All answers end by themselves; twice the room behind them is twice the pads."""
    models = tiny(), tiny(seed=1), tiny("reward", seed=2)
    wide = dataclasses.replace(CONFIG.sampling, max_new_tokens=2 * R)
    found = []
    for config in (CONFIG, dataclasses.replace(CONFIG, sampling=wide)):
        _, metrics, completions = step(init(config, *models), prompts())
        assert jnp.all(completions.finish == STOP) and np.sum(completions.mask) > B
        found.append((metrics, completions))
    (expected, narrow), (metrics, roomy) = found
    np.testing.assert_array_equal(roomy.tokens[:, :R], narrow.tokens)
    np.testing.assert_array_equal(roomy.mask, np.pad(narrow.mask, ((0, 0), (0, R))))
    assert metrics["objective/entropy"] > 0 and 0 <= metrics["policy/clipfrac_avg"] <= 1
    for name in expected.keys() - {"val/first_log_ratio"}:
        assert metrics[name] == pytest.approx(float(expected[name]), rel=1e-3, abs=1e-5), name
