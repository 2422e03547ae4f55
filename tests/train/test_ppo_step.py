"""The compiled iteration. Few configurations, since each is compiled anew."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.data.batches import span_mask
from glm_jax.decoding import LENGTH, STOP
from glm_jax.sampling import Sampling
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.ppo.iteration import PPOBatch, PPOHyperparameters, init, step
from glm_jax.train.sft import SFTBatch

B, P, R = 8, 5, 6
CONFIG = PPOHyperparameters(
    sampling=Sampling(max_new_tokens=R, temperature=0.7),
    iterations=50,
    batch_size=B,
    supervised_coefficient=0.0,
    actor=OptimizerConfig(learning_rate=1e-3),
)


# What CONFIG's first iteration gave before any of the options that are off in it was there, but for
# the order of the minibatches, whose key has changed.
RECORDED = {
    "loss/policy_avg": 3.1251352,
    "loss/value_avg": 9.7311668,
    "objective/entropy": 0.1027861,
    "objective/kl": 148.6225281,
    "objective/non_score_reward": -7.4311266,
    "objective/rlhf_reward": -6.9006872,
    "objective/scores_minus_reference": 0.5304386,
    "policy/approxkl_avg": 2.1042833,
    "policy/grad_norm": 62.6245384,
    "val/ratio": 0.9635561,
}


def prompts(pads=0, supervised=None):
    """Eight prompts of one to five tokens, behind at least `pads` pads."""
    rng = np.random.default_rng(0)
    lengths = np.array([1, 2, 3, 4, 5, 5, 1, 3])
    mask = span_mask(P + pads - lengths, np.full(B, P + pads), P + pads)
    tokens = np.zeros((B, P + pads), np.int32)
    tokens[:, pads:] = rng.integers(1, 20, (B, P))
    rows = np.arange(10, 10 + B, dtype=np.int32)
    reference_scores = rng.normal(size=B).astype(np.float32)
    return PPOBatch(np.where(mask, tokens, 0), mask, rows, reference_scores, supervised)


@pytest.fixture
def models(tiny):
    """Actor, reference and reward model, with logits of unit size and KLs that are not zero."""
    actor, reference = tiny(seed=0), tiny(seed=1)
    for model in (actor, reference):
        model.head.set_value(model.head[...] * 20.0)
    return actor, reference, tiny("reward", seed=2)


def same(one, other):
    return all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)
    )


def copied(tree):
    return jax.tree.map(np.array, tree)


def test_one_iteration(models):
    """What holds before the first update, and what an iteration may and may not change."""
    batch, state = prompts(), init(CONFIG, *models, seed=3)
    frozen, trained = copied(state.frozen), copied(state.trainable)
    given = jax.tree.leaves(state.replace(frozen=None))
    state, metrics, completions = step(state, batch)

    assert metrics["val/first_log_ratio"] < 1e-4
    assert metrics["val/first_log_ratio"] < metrics["val/max_log_ratio"]  # then it moves
    assert all(np.isfinite(value) and value.shape == () for value in metrics.values())

    for name, value in RECORDED.items():
        assert metrics[name] == pytest.approx(value, rel=1e-3), name
    sums = [sum(np.abs(x).sum() for x in jax.tree.leaves(copied(m))) for m in state.trainable]
    assert sums == pytest.approx([2295.0708, 1073.9102], rel=1e-5)

    relative = float(np.mean(completions.scores - batch.reference_scores))
    penalty = -CONFIG.kl_coefficient * float(np.mean(completions.kl))
    close = {"rel": 1e-5, "abs": 1e-6}
    assert abs(penalty) > 1e-3
    assert metrics["objective/non_score_reward"] == pytest.approx(penalty, **close)
    assert metrics["objective/scores_minus_reference"] == pytest.approx(relative, **close)
    assert metrics["objective/rlhf_reward"] == pytest.approx(relative + penalty, **close)
    assert 0 <= metrics["policy/clipfrac_avg"] <= 1 and metrics["objective/entropy"] > 0
    assert metrics["val/explained_variance"] == pytest.approx(0.0, abs=1e-5)  # its head was zero

    assert same(state.frozen, frozen)
    assert not same(state.trainable.actor, trained.actor)
    assert not same(state.trainable.critic, trained.critic)
    assert all(x.is_deleted() for x in given)  # the state's memory was written over
    assert not any(x.is_deleted() for x in jax.tree.leaves(models))
    counts = [x for x in jax.tree.leaves(state.optimiser) if x.dtype == jnp.int32]
    assert counts and all(jnp.all(count == CONFIG.updates) for count in counts)
    assert CONFIG.updates == 4


def test_a_model_has_no_kl_to_itself_whatever_the_temperature(models):
    actor, _, reward_model = models
    _, metrics, completions = step(init(CONFIG, actor, actor, reward_model), prompts())
    assert jnp.max(jnp.abs(completions.kl)) < 1e-4 and abs(metrics["objective/kl"]) < 1e-5


def test_the_seed_and_the_iteration_decide_what_is_drawn(models):
    def drawn(seed, iterations):
        state = init(CONFIG, *models, seed=seed).replace(iteration=jnp.int32(iterations))
        state, _, completions = step(state, prompts())
        return state, completions.tokens

    (one, tokens), (again, tokens_again) = drawn(3, 0), drawn(3, 0)
    assert same(one, again) and np.array_equal(tokens, tokens_again)
    for other in (drawn(3, 1), drawn(4, 0)):
        assert not np.array_equal(tokens, other[1])


def test_pads_change_no_metric(models):
    _, expected, completions = step(init(CONFIG, *models), prompts())
    _, metrics, padded = step(init(CONFIG, *models), prompts(pads=P))
    np.testing.assert_array_equal(padded.tokens, completions.tokens)
    expected, metrics = (
        {k: v for k, v in m.items() if k != "val/first_log_ratio"} for m in (expected, metrics)
    )
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def launches(folder, call):
    """How often the CPU client was told to execute a program while `call` ran, by its trace."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(str(folder), profiler_options=options):
        jax.block_until_ready(call())
    (file,) = folder.rglob("*.xplane.pb")
    trace = jax.profiler.ProfileData.from_file(str(file))
    events = (event for plane in trace.planes for line in plane.lines for event in line.events)
    return sum("LoadedExecutable::ExecuteHelper" in event.name for event in events)


def test_an_iteration_is_one_launch(models, tmp_path):
    """Counted in a profiler's trace; the counter is shown two launches and none first."""
    batch, state = prompts(), init(CONFIG, *models)
    state, _, _ = step(state, batch)
    double = jax.jit(lambda x: 2 * x)
    x = double(np.ones(3, np.float32))
    assert launches(tmp_path / "two", lambda: double(double(x))) == 2
    assert launches(tmp_path / "none", lambda: jax.device_put(np.ones(3))) == 0
    assert launches(tmp_path / "step", lambda: step(state, batch)) == 1


@pytest.mark.parametrize(("eos", "length", "stopped"), [(5.0, 1, True), (-5.0, R, False)])
def test_answers_of_one_token_and_answers_without_end(models, eos, length, stopped):
    """A model that sees nothing and always, or never, stops."""
    actor, reference, reward_model = models
    blind(actor)
    actor.embedding.set_value(jnp.ones_like(actor.embedding[...]))
    actor.head.set_value(jnp.zeros_like(actor.head[...]).at[:, 0].set(eos))
    state, metrics, completions = step(init(CONFIG, actor, reference, reward_model), prompts())
    assert metrics["length"] == length and metrics["truncated"] == 1.0 - stopped
    assert completions.mask.sum() == B * length
    assert completions.finish.tolist() == [STOP if stopped else LENGTH] * B
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state.trainable))


def test_an_update_that_is_not_finite_is_skipped_and_counted(models):
    """One answer's reward is infinite, then all are: it spoils its minibatch of each epoch."""
    good, state = prompts(), init(CONFIG, *models)
    spoilt = good._replace(reference_scores=good.reference_scores.copy())
    spoilt.reference_scores[3] = np.inf
    before = copied(state.trainable)
    state, metrics, _ = step(state, spoilt)
    assert metrics["update/skipped"] == 2 and CONFIG.updates == 4
    assert metrics["update/skipped_in_a_row"] == int(state.skipped) <= 2
    assert np.isfinite(metrics["loss/policy_avg"]) and metrics["policy/grad_norm"] > 0
    counts = [x for x in jax.tree.leaves(state.optimiser) if x.dtype == jnp.int32]
    assert all(jnp.all(count == 2) for count in counts)
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state))
    assert not same(state.trainable, before)

    before, row = copied((state.trainable, state.optimiser)), int(state.skipped)
    state, metrics, _ = step(state, good._replace(reference_scores=np.full(B, np.nan, np.float32)))
    assert same((state.trainable, state.optimiser), before)
    assert state.skipped == row + 4 and metrics["update/skipped"] == 4
    state, metrics, _ = step(state, good)
    assert state.skipped == 0 and not same((state.trainable, state.optimiser), before)


def test_without_learning_the_ratio_stays_1_and_the_critic_gets_no_policy_gradient(models):
    """Over all epochs and minibatches; the critic's own loss is switched off."""
    still = OptimizerConfig(learning_rate=0.0)
    config = dataclasses.replace(CONFIG, actor=still, value_coefficient=0.0)
    state = init(config, *models)
    before = copied(state.trainable)
    state, metrics, _ = step(state, prompts())
    assert metrics["val/max_log_ratio"] < 1e-5 and metrics["policy/clipfrac_avg"] == 0
    assert metrics["val/ratio"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["policy/grad_norm"] > 0.01 and metrics["loss/value_avg"] > 0
    assert same(state.trainable, before)


def test_a_supervised_term_of_weight_0_changes_no_bit(models):
    tokens = np.random.default_rng(1).integers(1, 20, (CONFIG.updates, 2, 7), np.int32)
    mask = np.ones_like(tokens, bool)
    without, _, _ = step(init(CONFIG, *models), prompts())
    state, metrics, _ = step(
        init(CONFIG, *models), prompts(supervised=SFTBatch(tokens, mask, mask))
    )
    assert same(state.trainable, without.trainable) and same(state.optimiser, without.optimiser)
    assert metrics["loss/supervised_avg"] > 1.0


def blind(model):
    """Zeroes what every layer adds: the hidden state is the normed embedding of the token."""
    for weight in (model.blocks.o, model.blocks.down):
        weight.set_value(jnp.zeros_like(weight[...]))


def counter(model, token):
    """Makes a scalar model score the share of `token` in the text.

    The first layer attends evenly to all that came before; its value is 1 at the token and 0
    elsewhere, and is added to a dimension that no embedding uses, which the head reads.
    """
    blind(model)
    blocks, D = model.blocks, model.config.hidden_size
    model.embedding.set_value(jnp.eye(*model.embedding.shape))
    zero = {"q": blocks.q, "q_bias": blocks.q_bias, "v": blocks.v, "v_bias": blocks.v_bias}
    for weight in zero.values():
        weight.set_value(jnp.zeros_like(weight[...]))
    blocks.v.set_value(blocks.v[...].at[0, token, 0, 0].set(1.0))
    blocks.o.set_value(blocks.o[...].at[0, 0, 0, D - 1].set(1.0))
    model.head.set_value(jnp.zeros((D, 1)).at[D - 1, 0].set(1.0))
    return model


def test_ppo_learns_what_is_rewarded_and_keeps_what_is_taught(tiny):
    """A bandit: the reward counts token 7, whose share rises from chance to nearly all.

    Meanwhile the supervised data teach the answer 3 3 3 3 to another prompt.
    """
    small = {"vocab_size": 12, "hidden_size": 16}
    config = PPOHyperparameters(
        sampling=Sampling(max_new_tokens=R),
        iterations=30,
        batch_size=32,
        kl_coefficient=0.0,
        supervised_coefficient=1.0,
        actor=OptimizerConfig(learning_rate=1e-2),
        critic=OptimizerConfig(learning_rate=1e-2),
    )
    actor, reward_model = tiny(**small), counter(tiny("reward", **small), token=7)
    taught = np.full((config.updates, 1, 6), 3, np.int32)
    taught[:, :, :2] = 5
    mask = np.ones_like(taught, bool)
    supervised = SFTBatch(taught, mask, taught == 3)
    ones, rows = np.ones((32, 2), np.int32), np.arange(32, dtype=np.int32)
    batch = PPOBatch(ones, ones.astype(bool), rows, np.zeros(32, np.float32), supervised)
    state, shares, losses = init(config, actor, actor, reward_model), [], []
    for _ in range(config.iterations):
        state, metrics, completions = step(state, batch)
        shares.append(float(np.mean(completions.tokens[completions.mask] == 7)))
        losses.append(float(metrics["loss/supervised_avg"]))
    assert shares[0] < 0.25 and np.mean(shares[-3:]) > 0.9, shares
    assert losses[0] > 1.0 and losses[-1] < 0.1, losses
