"""The gradient of an update against REINFORCE's, over devices, and in bfloat16."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from glm_jax.sampling import Sampling
from glm_jax.train.losses import masked
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.iteration import init, ppo_step, step
from glm_jax.train.ppo.objective import Trainable
from glm_jax.train.ppo.rollout import roll_out
from glm_jax.train.ppo.scores import PPOBatch
from glm_jax.train.ppo.update import _backward
from glm_jax.train.scoring import token_log_probs

B, P, R = 8, 3, 6
# with so large an epsilon Adam's step is in proportion to the gradient: rounding stays small
LINEAR = OptimizerConfig(learning_rate=0.1, epsilon=1.0)
CONFIG = PPOHyperparameters(
    sampling=Sampling(max_new_tokens=R, stop_ids=(1, 2, 3)),
    iterations=20,
    batch_size=B,
    kl_coefficient=0.1,
    supervised_coefficient=0.0,
    whiten_rewards=True,
    whiten_advantages=True,
    actor=LINEAR,
    critic=LINEAR,
)


@pytest.fixture
def models(tiny):
    return tiny(seed=0), tiny(seed=1), tiny("reward", seed=2)


def batch():
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, 20, (B, P), np.int32)
    scores, rows = rng.normal(size=B).astype(np.float32), np.arange(B, dtype=np.int32)
    return PPOBatch(tokens, np.ones((B, P), bool), rows, scores, None)


def test_with_lambda_1_one_epoch_and_no_clip_it_is_reinforce_with_a_baseline(models):
    """-mean (score - beta KL from here on - V) grad log p, V the critic's value."""
    config = dataclasses.replace(
        CONFIG, lam=1.0, epochs=1, minibatches=1, clip=1e6, value_coefficient=0.0,
        whiten_rewards=False, whiten_advantages=False,
    )  # fmt: skip
    state = init(config, *models)
    critic = state.trainable.critic
    critic.head.set_value(0.3 * jax.random.normal(jax.random.key(5), critic.head.shape))
    rollout, _, completions = roll_out(
        state.trainable, state.frozen, batch(), jax.random.key(0), state.kl_coefficient, config
    )
    done, _ = _backward(state.trainable, rollout, None, config)

    tokens, mask, learned = rollout.tokens, rollout.mask, np.asarray(rollout.learned)
    ours = token_log_probs(models[0], tokens, mask, R)
    kl = np.where(learned, np.asarray(ours - token_log_probs(models[1], tokens, mask, R)), 0.0)
    scores = np.asarray(completions.scores) - batch().reference_scores
    to_come = scores[:, None] - 0.1 * np.cumsum(kl[:, ::-1], axis=1)[:, ::-1]
    baseline = np.asarray(critic(tokens, mask))[:, P - 1 : -1]
    weight = jnp.asarray(np.where(learned, to_come - baseline, 0.0), jnp.float32)

    def reinforce(actor):
        return masked(-weight * token_log_probs(actor, tokens, mask, R), rollout.learned).mean

    expected = jax.grad(reinforce)(models[0])
    for a, b in zip(*map(jax.tree.leaves, (done.gradients.actor, expected)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))
    assert all(not np.any(x) for x in jax.tree.leaves(done.gradients.critic))


def test_eight_devices_are_one(models):
    """Prompts over eight devices: what is drawn, said, whitened and learned is the same."""
    plain, expected, completions = step(init(CONFIG, *models), batch())
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    over, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], []))
    state = jax.device_put(init(CONFIG, *models), whole)
    given = jax.device_put(batch()._replace(supervised=None), over)
    state, metrics, again = step(state, given)
    np.testing.assert_array_equal(again.tokens, completions.tokens)
    np.testing.assert_allclose(again.log_probs, completions.log_probs, atol=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-3, atol=2e-5, err_msg=name)
    start = init(CONFIG, *models).trainable
    for a, b, x in zip(*map(jax.tree.leaves, (state.trainable, plain.trainable, start)), strict=1):
        assert np.abs(a - b).max() <= 1e-3 * np.abs(b - x).max() + 1e-6


def test_in_bfloat16_the_old_log_probs_are_the_training_passes_own(tiny):
    """Those of sampling are not."""
    wide = {"hidden_size": 128, "num_attention_heads": 4, "head_dim": 32, "num_hidden_layers": 4}
    actor, reference, reward = (tiny(head, **wide) for head in ("lm", "lm", "reward"))
    actor.head.set_value(actor.head[...] * 8.0)
    config = dataclasses.replace(
        CONFIG, compute="bfloat16", sampling=Sampling(max_new_tokens=24, stop_ids=(1,))
    )
    assert config.old == "recomputed"
    state, metrics, _ = step(init(config, actor, reference, reward), batch())
    assert metrics["val/first_log_ratio"] < 1e-6 and metrics["val/sampler_gap"] > 2e-5
    assert {x.dtype for x in jax.tree.leaves(state.trainable)} == {jnp.dtype("float32")}
    assert all(np.isfinite(value) for value in metrics.values())


def test_the_state_is_written_over(models):
    """Its memory is the result's: the compiled program says so, and needs no other copy of it."""
    state = init(CONFIG, *models)
    size = sum(x.nbytes for x in jax.tree.leaves(state.replace(frozen=None)))
    jaxtyping.config.update("jaxtyping_disable", True)  # the lowered state's leaves are no arrays
    try:
        lowered = ppo_step.lower(state.replace(frozen=None), state.frozen, batch())
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    memory = lowered.compile().memory_analysis()
    assert memory.alias_size_in_bytes >= size
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    assert fresh < sum(x.nbytes for x in jax.tree.leaves(Trainable(models[0], None)))
