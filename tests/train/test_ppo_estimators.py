"""Advantages with and without a critic, and critics of several kinds, inside the iteration."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from glm_jax.decoding import LENGTH
from glm_jax.errors import InputError
from glm_jax.sampling import Sampling
from glm_jax.train.advantages import gae, group_normalised, leave_one_out
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.iteration import init, step
from glm_jax.train.ppo.rollout import roll_out
from glm_jax.train.ppo.scores import PPOBatch

B, K, P, R = 4, 3, 3, 6
BETA = 0.5
PLAIN = PPOHyperparameters(
    sampling=Sampling(max_new_tokens=R, stop_ids=(1, 2, 3)),
    iterations=20,
    batch_size=B,
    kl_coefficient=BETA,
    supervised_coefficient=0.0,
    actor=OptimizerConfig(learning_rate=1e-2),
)
rolled_out = jax.jit(roll_out, static_argnums=5)


def batch(**changes):
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, 20, (B, P), np.int32)
    scores = rng.normal(size=B).astype(np.float32)
    rows = np.arange(B, dtype=np.int32)
    return PPOBatch(tokens, np.ones((B, P), bool), rows, scores, None)._replace(**changes)


def sevens(batch, drawn):
    """The number of sevens in an answer, less the first token of its prompt."""
    counted = jnp.sum((drawn.tokens == 7) & drawn.mask, axis=1)
    return (counted - batch.prompts[:, 0]).astype(jnp.float32)


def start(tiny, reward=None, **options):
    config = dataclasses.replace(PLAIN, **options)
    return init(config, tiny(seed=0), tiny(seed=1), reward or tiny("reward", seed=2))


def drawn(state, given=None):
    return rolled_out(
        state.trainable, state.frozen, given or batch(), jax.random.key(0),
        state.kl_coefficient, state.config,
    )  # fmt: skip


def same(one, other):
    return all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)
    )


def copied(tree):
    return jax.tree.map(np.array, tree)


def test_a_prompt_that_stands_twice_in_a_batch_gets_two_answers(tiny):
    """Its first place draws what it would draw alone."""
    state, rows = start(tiny), np.array([3, 1, 3, 3], np.int32)
    given = batch(rows=rows, prompts=np.full((B, P), 5, np.int32))
    others = given._replace(rows=np.array([3, 1, 7, 8], np.int32))
    (_, _, twice), (_, _, alone) = drawn(state, given), drawn(state, others)
    assert len({tuple(row) for row in np.asarray(twice.log_probs).tolist()}) == B
    np.testing.assert_array_equal(twice.tokens[:2], alone.tokens[:2])


def test_groups_by_hand_and_answers_that_do_not_count():
    rewards = jnp.array([[1.0, 0.0, -3.0, 5.0], [2.0, 7.0, -1.0, 100.0]])
    counted = jnp.array([[True] * 4, [True, True, True, False]])
    baselines = rewards - leave_one_out(rewards, counted)
    np.testing.assert_allclose(baselines[0], [2 / 3, 1, 2, -2 / 3], atol=1e-6)
    np.testing.assert_allclose(baselines[1, :3], [3, 0.5, 4.5], atol=1e-6)
    scaled = group_normalised(rewards, counted)
    for row, n in ((0, 4), (1, 3)):
        np.testing.assert_allclose(jnp.mean(scaled[row, :n]), 0.0, atol=1e-6)
        np.testing.assert_allclose(jnp.std(scaled[row, :n], ddof=1), 1.0, atol=1e-5)
    alone = jnp.array([[4.0, 9.0]]), jnp.array([[True, False]])
    assert leave_one_out(*alone)[0, 0] == 4.0 and group_normalised(*alone)[0, 0] == 0.0
    equal = jnp.ones((1, 3)), jnp.ones((1, 3), bool)
    assert not np.any(leave_one_out(*equal)) and not np.any(group_normalised(*equal))


@pytest.mark.parametrize("advantage", ["rloo", "grpo", "remax"])
def test_advantages_without_a_critic(tiny, advantage):
    """Against numbers made here from what was drawn; there is no critic and no value loss."""
    state = start(tiny, advantage=advantage, samples_per_prompt=K)
    assert state.trainable.critic is None and state.optimiser.critic is None
    rollout, metrics, completions = drawn(state)
    N, mask = B * K, np.asarray(completions.mask)
    assert completions.tokens.shape == (N, R) and rollout.values is None
    texts = {tuple(row) for row in np.asarray(completions.tokens).tolist()}
    assert len(texts) > B  # the answers to a prompt differ
    np.testing.assert_array_equal(rollout.tokens[:, :P], np.repeat(batch().prompts, K, axis=0))
    relative = np.asarray(completions.scores) - np.repeat(batch().reference_scores, K)
    total = (relative - BETA * np.asarray(completions.kl)).reshape(B, K)
    if advantage == "remax":
        first = np.argmax(mask, axis=1)  # at the first token all rewards are still to come
        found = np.asarray(rollout.advantages)[np.arange(N), first].reshape(B, K)
        off = total - found
        np.testing.assert_allclose(off, np.repeat(off[:, :1], K, axis=1), atol=1e-4)
        last = mask.sum(axis=1) - 1
        final = np.asarray(rollout.advantages)[np.arange(N), last]
        assert not np.allclose(final.reshape(B, K), found, atol=1e-3)
    else:
        expected = total - (total.sum(axis=1, keepdims=True) - total) / (K - 1)
        if advantage == "grpo":
            spread = total.std(axis=1, ddof=1, keepdims=True)
            expected = (total - total.mean(axis=1, keepdims=True)) / (spread + 1e-6)
        np.testing.assert_allclose(
            rollout.advantages, np.where(mask, expected.reshape(N, 1), 0.0), atol=1e-4
        )
    assert "val/explained_variance" not in metrics
    before = copied(state.trainable)
    state, metrics, _ = step(state, batch())
    assert "loss/value_avg" not in metrics and metrics["val/first_log_ratio"] < 1e-4
    assert not same(state.trainable, before)


def test_remax_subtracts_the_reward_of_the_greedy_answer(tiny):
    """The reward counts sevens; an actor that always says 7 is greedy for it."""
    actor = tiny(seed=0)
    actor.head.set_value(jnp.zeros_like(actor.head[...]))
    config = dataclasses.replace(
        PLAIN,
        advantage="remax",
        kl_coefficient=0.0,
        sampling=Sampling(max_new_tokens=R, stop_ids=()),
    )
    actor.embedding.set_value(jnp.ones_like(actor.embedding[...]))
    for weight in (actor.blocks.o, actor.blocks.down):
        weight.set_value(jnp.zeros_like(weight[...]))
    actor.head.set_value(actor.head[...].at[:, 7].set(0.01))
    state = init(config, actor, actor, Partial(sevens))
    rollout, _, completions = drawn(state)
    counted = np.sum(np.asarray(completions.tokens) == 7, axis=1)
    assert counted.max() < R
    expected = np.repeat((counted - R)[:, None], R, axis=1).astype(np.float32)
    np.testing.assert_allclose(rollout.advantages, expected, atol=1e-4)


def test_a_constant_of_the_prompt_in_score_and_reference_changes_nothing(tiny):
    """The reward as a JAX function, which is part of the program."""

    def shifted(batch, drawn):
        return sevens(batch, drawn) + (3 * batch.prompts[:, 1]).astype(jnp.float32)

    scores = batch().reference_scores
    given = batch(
        reference_scores=scores + np.float32(3) * batch().prompts[:, 1].astype(np.float32)
    )
    plain, _, completions = drawn(start(tiny, Partial(sevens)))
    other, _, again = drawn(start(tiny, Partial(shifted)), given)
    assert not np.allclose(again.scores, completions.scores)
    np.testing.assert_allclose(other.advantages, plain.advantages, atol=1e-4)
    tokens, mask = np.asarray(completions.tokens), np.asarray(completions.mask)
    counted = np.sum((tokens == 7) & mask, axis=1) - batch().prompts[:, 0]
    np.testing.assert_array_equal(completions.scores, counted)


def test_a_critic_on_the_actors_trunk(tiny):
    """Its values are those of a separate critic with the same trunk; the trunk learns from it."""
    state = start(tiny, share_trunk=True)
    assert len(jax.tree.leaves(state.trainable.critic)) == 1
    head = 0.1 * jax.random.normal(jax.random.key(1), state.trainable.critic.head.shape)
    state.trainable.critic.head.set_value(head)
    apart = init(PLAIN, tiny(seed=0), tiny(seed=1), tiny("reward", seed=2), critic=tiny(seed=0))
    apart.trainable.critic.head.set_value(jnp.copy(head))
    kept = np.array(head)
    (shared, _, _), (separate, _, _) = drawn(state), drawn(apart)
    assert np.abs(shared.values).max() > 0.01
    np.testing.assert_allclose(shared.values, separate.values, atol=1e-5)
    (state, metrics, _), (apart, other, _) = step(state, batch()), step(apart, batch())
    assert metrics["policy/grad_norm"] > other["policy/grad_norm"] * 1.0001
    assert (
        not np.array_equal(state.trainable.critic.head[...], kept) and metrics["loss/value_avg"] > 0
    )


def test_while_the_critic_warms_up_the_actor_stays(tiny):
    state = start(tiny, critic_warmup=1)
    before = copied(state.trainable)
    state, metrics, _ = step(state, batch())
    assert same(state.trainable.actor, before.actor)
    assert not same(state.trainable.critic, before.critic)
    assert metrics["update/skipped"] == 0 and metrics["val/max_log_ratio"] < 1e-4
    counts = [x for x in jax.tree.leaves(state.optimiser.actor) if x.dtype == jnp.int32]
    assert counts and all(jnp.all(count == 0) for count in counts)
    state, _, _ = step(state, batch())
    assert not same(state.trainable.actor, before.actor)


def test_answers_that_were_cut_off_end_in_the_critics_value(tiny):
    """By hand in one row; in the program the score gives way to the value after the last token."""
    rewards, values = jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 0.25]])
    advantages, _ = gae(rewards, values, jnp.ones((1, 2), bool), 0.9, 0.8, jnp.array([2.0]))
    last = 1.0 + 0.9 * 2.0 - 0.25
    first = 0.9 * 0.25 - 0.5 + 0.9 * 0.8 * last
    np.testing.assert_allclose(advantages, [[first, last]], rtol=1e-6)

    options = {"kl_coefficient": 0.0, "lam": 1.0, "truncated": "bootstrap"}
    state = start(tiny, **options)
    state.trainable.critic.head.set_value(jnp.ones_like(state.trainable.critic.head[...]))
    rollout, _, completions = drawn(state)
    truncated = np.asarray(completions.finish) == LENGTH
    assert 0 < truncated.sum() < B
    after = state.trainable.critic(rollout.tokens, rollout.mask)[:, -1]
    relative = np.asarray(completions.scores) - batch().reference_scores
    goals = np.where(truncated, after, relative)
    expected = np.where(completions.mask, goals[:, None], 0.0)
    np.testing.assert_allclose(rollout.returns, expected, atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"advantage": "rloo"},
        {"share_trunk": True, "advantage": "remax"},
        {"critic_warmup": 20},
        {"whiten_rewards": True, "advantage": "remax"},
        {"kl_horizon": 0.5, "kl_target": 1.0},
        {"critic_warmup": 1, "advantage": "remax"},
        {"truncated": "bootstrap", "advantage": "remax"},
        {"rollout_rows": 3, "advantage": "remax", "samples_per_prompt": 3},
        {"lam": 0.5, "advantage": "rloo", "samples_per_prompt": 2},
        {"gamma": 0.9, "advantage": "grpo", "samples_per_prompt": 2},
        {"value_clip": None, "advantage": "remax"},
        {"refill": 2, "rollout_rows": B},
    ],
)
def test_settings_that_do_not_go_together_are_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        dataclasses.replace(PLAIN, **wrong)
