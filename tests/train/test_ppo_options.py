"""What each option of PPO changes inside the compiled iteration; defaults change nothing."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.data.batches import span_mask
from glm_jax.errors import InputError, RunStopped
from glm_jax.sampling import Sampling
from glm_jax.train import losses
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.ppo.guards import check_skipped
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.iteration import init, step
from glm_jax.train.ppo.objective import Rollout, Trainable
from glm_jax.train.ppo.rollout import roll_out
from glm_jax.train.ppo.scores import PPOBatch
from glm_jax.train.ppo.update import Learner, optimisers, update
from glm_jax.train.scoring import states_before

B, P, R = 8, 3, 6
BETA = 0.5
PLAIN = PPOHyperparameters(
    sampling=Sampling(max_new_tokens=R, stop_ids=(1, 2, 3)),
    batch_size=B,
    kl_coefficient=BETA,
    lam=1.0,
    supervised_coefficient=0.0,
    actor=OptimizerConfig(learning_rate=1e-3),
)
rolled_out = jax.jit(roll_out, static_argnums=5)


@pytest.fixture
def models(tiny):
    return tiny(seed=0), tiny(seed=1), tiny("reward", seed=2)


def batch():
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, 20, (B, P), np.int32)
    rows = np.arange(B, dtype=np.int32)
    return PPOBatch(
        tokens, np.ones((B, P), bool), rows, rng.normal(size=B).astype(np.float32), None
    )


def drawn(models, **options):
    """The rollout, its metrics, what was drawn, and the rewards as the returns tell them.

    The critic says 0, gamma and lambda are 1: a return is the sum of the rewards to come.
    """
    config = dataclasses.replace(PLAIN, **options)
    state = init(config, *models)
    key = jax.random.key(0)
    rollout, metrics, scored = rolled_out(
        state.trainable, state.frozen, batch(), key, state.kl_coefficient, config
    )
    returns = np.asarray(rollout.returns)
    return rollout, metrics, scored, returns - np.pad(returns[:, 1:], ((0, 0), (0, 1)))


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_scores_are_cut_and_lowered_before_the_kl_is_added_and_whitening_is_last(models):
    plain, metrics, scored, rewards = drawn(models)
    options = {"score_clip": 0.5, "truncated": "penalty", "truncation_penalty": 2.0}
    other, changed, again, found = drawn(
        models, kl_estimator="k3", whiten_advantages=True, **options
    )
    np.testing.assert_array_equal(again.tokens, scored.tokens)
    np.testing.assert_array_equal(again.kl, scored.kl)  # reported as k1 either way

    relative = np.asarray(scored.scores) - batch().reference_scores
    truncated = np.asarray(scored.finish) == 0
    assert 0 < truncated.sum() < B and np.any(np.abs(relative) > 0.5)
    last = np.asarray(scored.mask).sum(axis=1) - 1
    place = np.arange(R)[None] == last[:, None]
    log_ratio = np.where(place, relative[:, None] - rewards, -rewards) / BETA  # of plain k1
    k3 = np.expm1(-log_ratio) + log_ratio
    goals = np.clip(relative, -0.5, 0.5) - 2.0 * truncated
    close(found, np.where(place, goals[:, None], 0.0) - BETA * k3, 1e-4)
    assert changed["objective/rlhf_reward"] == pytest.approx(found.sum(axis=1).mean(), rel=1e-4)
    non_score = float(changed["objective/rlhf_reward"]) - goals.mean()
    assert changed["objective/non_score_reward"] == pytest.approx(non_score, rel=1e-4)
    assert changed["objective/scores"] == metrics["objective/scores"]
    inside = np.asarray(other.advantages)[np.asarray(other.learned)]
    close([inside.mean(), inside.std(ddof=1)], [0.0, 1.0], 1e-4)
    assert plain.learned.sum() == other.learned.sum()


def test_truncated_answers_are_left_out_and_rewards_are_scaled_over_the_others(models):
    plain, metrics, scored, rewards = drawn(models)
    other, changed, _, found = drawn(models, truncated="mask", whiten_rewards=True)
    ended = np.asarray(scored.finish) != 0
    kept = np.asarray(scored.mask) & ended[:, None]
    np.testing.assert_array_equal(other.learned, kept)
    np.testing.assert_array_equal(other.mask, plain.mask)
    inside = rewards[kept]
    scaled = (inside - inside.mean()) / inside.std(ddof=1) + inside.mean()
    close(found[kept], scaled, 1e-4)
    for name in ("objective/rlhf_reward", "objective/kl", "length", "truncated"):
        assert changed[name] == metrics[name], name


def test_beta_adapts_from_one_iteration_to_the_next(models):
    """Each by at most 0.2 n / horizon; the new one weighs the KL of the next."""
    config = dataclasses.replace(PLAIN, kl_target=1e-6, kl_horizon=4.0 * B, entropy_coefficient=1.0)
    state = init(config, *models)
    for expected in (BETA, BETA * 1.05, BETA * 1.05**2):
        assert state.kl_coefficient == pytest.approx(expected, rel=1e-6)
        state, metrics, completions = step(state, batch())
        assert metrics["objective/kl"] > 1e-6
        assert metrics["objective/kl_coef"] == pytest.approx(expected, rel=1e-6)
        penalty = -expected * float(jnp.mean(completions.kl))
        assert metrics["objective/non_score_reward"] == pytest.approx(penalty, rel=1e-4)
    assert 0 < metrics["policy/entropy_avg"] <= np.log(20) + 1e-5


def minibatch(models, ratio, advantage, learned=True):
    """Answers whose ratio is the given one; all values were 0 and should be 1."""
    mask = jnp.asarray(span_mask(np.zeros(2, int), np.full(2, P + R), P + R))
    tokens = jnp.asarray(np.random.default_rng(1).integers(1, 20, (2, P + R), np.int32))
    logits = models[0].outputs(states_before(models[0], tokens, mask, R))
    log_probs = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_probs, tokens[:, P:, None], axis=-1)[..., 0]
    response = jnp.full((2, R), learned)
    zeros = jnp.zeros((2, R))
    old = chosen - jnp.log(jnp.float32(ratio))
    return Rollout(tokens, mask, response, old, zeros - 1, zeros + advantage, zeros + 1), logits


def updated(models, ratio=5.0, advantage=-2.0, learned=True, **options):
    config = dataclasses.replace(PLAIN, **options)
    trainable = Trainable(models[0], init(config, *models).trainable.critic)
    states = Trainable(*(o.init(m) for o, m in zip(optimisers(config), trainable, strict=True)))
    learner = Learner(trainable, states, jnp.int32(0))
    given, logits = minibatch(models, ratio, advantage, learned)
    return *jax.jit(partial(update, config=config))(learner, given, None), logits


def test_dual_clip_value_clip_and_entropy_in_the_update(models):
    """A ratio of 5 at advantage -2 costs 10, or 6 with dual clip 3, where its gradient is 0.

    The critic says 0, said -1 and should say 1: clipped at 0.2 it is still off by 1.8.
    """
    _, plain, _ = updated(models)
    assert plain["loss/policy_avg"] == pytest.approx(10.0, rel=1e-5)
    assert plain["loss/value_avg"] == pytest.approx(0.5 * 1.8**2, rel=1e-5)
    assert plain["val/clipfrac_avg"] == 1 and plain["policy/grad_norm"] > 0.01
    assert "policy/entropy_avg" not in plain
    _, bounded, _ = updated(models, dual_clip=3.0, value_clip=None)
    assert bounded["loss/policy_avg"] == pytest.approx(6.0, rel=1e-5)
    assert bounded["loss/value_avg"] == pytest.approx(0.5, rel=1e-5)
    assert bounded["val/clipfrac_avg"] == 0 and bounded["policy/grad_norm"] == 0
    learner, flat, logits = updated(models, dual_clip=3.0, entropy_coefficient=0.5)
    mean = jnp.mean(losses.entropy(logits))
    assert flat["policy/entropy_avg"] == pytest.approx(float(mean), rel=1e-5)
    given, _ = minibatch(models, 5.0, -2.0)
    actor = learner.models.actor
    hidden = states_before(actor, given.tokens, given.mask, R)
    after = losses.entropy(actor.outputs(hidden))
    assert jnp.mean(after) > mean and flat["policy/grad_norm"] > 0  # only the entropy moved it


def test_when_every_answer_is_left_out_nothing_is_learned_and_nothing_breaks(models):
    learner, metrics, _ = updated(models, learned=False)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["update/applied"] == 1 and metrics["policy/grad_norm"] == 0
    for a, b in zip(*map(jax.tree.leaves, (learner.models.actor, models[0])), strict=True):
        np.testing.assert_array_equal(a, b)


def test_too_many_skipped_updates_in_a_row_stop_the_run():
    check_skipped(7, {"update/skipped_in_a_row": 2.0}, most=2)
    with pytest.raises(RunStopped, match="in 3 updates in a row"):
        check_skipped(7, {"update/skipped_in_a_row": 3.0}, most=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dual_clip": 1.0},
        {"score_clip": 0.0},
        {"kl_target": -1.0},
        {"kl_target": 5.0, "kl_coefficient": 0.0},
        {"kl_limit": 5.0, "kl_coefficient": 0.0},
        {"truncated": "drop"},
    ],
)
def test_options_that_mean_nothing_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        PPOHyperparameters(**wrong)
