import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.data.batches import span_mask
from glm_jax.train.advantages import adapted, gae, token_kl, token_rewards, whiten


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def matrix(rows):
    return jnp.asarray(rows, jnp.float32)


def lengths_mask(lengths, R):
    return jnp.asarray(span_mask(np.zeros_like(lengths), np.asarray(lengths), R))


@pytest.fixture
def episodes():
    """Rewards, values and a mask of 16 responses of 1 to 7 tokens."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 8, 16)
    return matrix(rng.normal(size=(16, 7))), matrix(rng.normal(size=(16, 7))), lengths


ESTIMATORS = {
    "k1": [[2.0, -1.0]],
    "k2": [[2.0, 0.5]],
    "k3": [[np.exp(-2.0) + 1.0, np.e - 2.0]],
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_kl_estimators_by_hand(estimator):
    log_probs = matrix([[-1.0, -2.0]])
    assert not np.any(token_kl(log_probs, log_probs, estimator))
    close(token_kl(log_probs, matrix([[-3.0, -1.0]]), estimator), ESTIMATORS[estimator])


def test_k1_and_k3_have_the_kl_as_their_mean_and_k3_is_nowhere_negative():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    kl = np.sum(p * np.log(p / q))
    for estimator in ("k1", "k3"):
        of_token = token_kl(matrix([np.log(p)]), matrix([np.log(q)]), estimator)[0]
        assert np.sum(p * of_token) == pytest.approx(kl, rel=1e-5)
    assert np.all(of_token >= 0)


def test_the_adaptive_coefficient_by_hand():
    """KL 4 of target 5 is -0.2; 5.5 is +0.1; further away it moves no faster; 64 of 1000 seen."""
    for kl, factor in [(4.0, 0.9872), (5.5, 1.0064), (50.0, 1.0128), (0.0, 0.9872), (5.0, 1.0)]:
        close(adapted(jnp.float32(0.3), jnp.float32(kl), 5.0, 1000.0, 64), 0.3 * factor, 1e-6)


def test_whitening_by_hand_over_the_global_mask():
    """1, 3 and 8 have mean 4 and unbiased variance (9 + 1 + 16) / 2 = 13."""
    values, mask = matrix([[1.0, 3.0], [8.0, jnp.nan]]), lengths_mask([2, 1], 2)
    by = 13.0**-0.5
    close(whiten(values, mask, center=True), [[-3 * by, -by], [4 * by, 0.0]])
    close(whiten(values, mask, center=False), [[4 - 3 * by, 4 - by], [4 + 4 * by, 0.0]])
    one, none = lengths_mask([1, 0], 2), lengths_mask([0, 0], 2)
    assert not np.any(whiten(values, one, center=True))
    assert not np.any(whiten(values, none, center=False))


def test_whitening_does_not_see_how_the_rows_are_laid_over_devices():
    """Over each device's own rows it would be another."""
    rng = np.random.default_rng(1)
    values, mask = matrix(rng.normal(size=(8, 5))), lengths_mask(rng.integers(1, 6, 8), 5)
    expected = whiten(values, mask, center=True)
    mesh = jax.make_mesh((8,), ("data",))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    laid = jax.jit(lambda v, m: whiten(v, m, center=True))(*jax.device_put((values, mask), rows))
    close(laid, expected)
    apart = [whiten(values[b : b + 1], mask[b : b + 1], center=True) for b in range(8)]
    assert not np.allclose(jnp.concatenate(apart), expected, atol=0.1)


def test_token_rewards_by_hand():
    """The score once, at the last response token; the penalty on response tokens only."""
    kl = matrix([[1.0, 2.0, -1.0], [3.0, jnp.nan, 5.0]])
    mask = lengths_mask([3, 1], 3)
    rewards = token_rewards(matrix([10.0, -4.0]), kl, mask, jnp.float32(0.1))
    close(rewards, [[-0.1, -0.2, 10.1], [-4.3, 0.0, 0.0]])


def test_token_rewards_sum_to_score_minus_beta_kl(episodes):
    kl, _, lengths = episodes
    mask = lengths_mask(lengths, 7)
    scores = jnp.arange(16, dtype=jnp.float32) - 8
    rewards = token_rewards(scores, kl, mask, jnp.float32(0.3))
    kl_of_rows = jnp.sum(jnp.where(mask, kl, 0.0), axis=1)
    close(jnp.sum(rewards, axis=1), scores - 0.3 * kl_of_rows)
    assert not jnp.any(jnp.where(mask, 0.0, rewards))


def test_gae_by_hand():
    """gamma 0.5, lambda 0.5; deltas are 1 + 0.5 * 2 - 4 = -2, 0 + 0.5 * 6 - 2 = 1, 8 - 6 = 2."""
    advantages, returns = gae(
        matrix([[1.0, 0.0, 8.0]]), matrix([[4.0, 2.0, 6.0]]), lengths_mask([3], 3), 0.5, 0.5
    )
    close(advantages, [[-2 + 0.25 * 1.5, 1 + 0.25 * 2, 2.0]])
    close(returns, [[4 - 1.625, 2 + 1.5, 6 + 2.0]])


def loop(rewards, values, length, gamma, lam):
    """GAE of one response as a sum: A_t = sum over l of (gamma lam)^l delta_{t+l}."""
    later = [*values[1:length], 0.0]
    deltas = [rewards[t] + gamma * later[t] - values[t] for t in range(length)]
    return [
        sum((gamma * lam) ** (s - t) * deltas[s] for s in range(t, length)) for t in range(length)
    ]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.7, 0.0)])
def test_gae_equals_a_plain_loop(episodes, gamma, lam):
    rewards, values, lengths = episodes
    advantages, returns = gae(rewards, values, lengths_mask(lengths, 7), gamma, lam)
    for b, length in enumerate(lengths):
        row = loop(rewards[b].tolist(), values[b].tolist(), length, gamma, lam)
        close(advantages[b], row + [0.0] * (7 - length))
        close(returns[b, :length], np.add(row, values[b, :length]))
        close(returns[b, length:], np.zeros(7 - length))


def test_lambda_1_gives_return_minus_value_and_lambda_0_the_td_error(episodes):
    rewards, values, lengths = episodes
    mask = lengths_mask(lengths, 7)
    to_go = jnp.cumsum(jnp.where(mask, rewards, 0.0)[:, ::-1], axis=1)[:, ::-1]
    close(gae(rewards, values, mask, 1.0, 1.0)[0], jnp.where(mask, to_go - values, 0.0))
    later = jnp.pad(jnp.where(mask, values, 0.0)[:, 1:], ((0, 0), (0, 1)))
    td = rewards + 0.9 * later - values
    close(gae(rewards, values, mask, 0.9, 0.0)[0], jnp.where(mask, td, 0.0))


def test_gae_does_not_see_pads(episodes):
    """Neither their number nor what stands there."""
    rewards, values, lengths = episodes
    expected = gae(rewards, values, lengths_mask(lengths, 7), 0.9, 0.8)
    mask = lengths_mask(lengths, 12)
    longer = [jnp.where(mask, jnp.pad(x, ((0, 0), (0, 5))), jnp.nan) for x in (rewards, values)]
    actual = gae(*longer, mask, 0.9, 0.8)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, jnp.pad(e, ((0, 0), (0, 5))))


def test_no_gradient_flows_into_the_critic(episodes):
    rewards, values, lengths = episodes
    mask = lengths_mask(lengths, 7)

    def summed(values):
        advantages, returns = gae(rewards, values, mask, 1.0, 0.9)
        return jnp.sum(advantages) + 2.0 * jnp.sum(returns)

    assert not np.any(jax.grad(summed)(values))


def test_an_empty_response_is_nothing_and_a_short_one_is_whole():
    mask = lengths_mask([0, 1], 3)
    kl, values = jnp.full((2, 3), 0.5), jnp.ones((2, 3))
    rewards = token_rewards(matrix([2.5, 2.5]), kl, mask, jnp.float32(0.5))
    advantages, returns = gae(rewards, values, mask, 1.0, 0.9)
    close(rewards, [[0, 0, 0], [2.25, 0, 0]])  # and no score is cut to an integer
    close(advantages, [[0, 0, 0], [1.25, 0, 0]])
    close(returns, rewards)


def test_returns_are_taken_before_whitening(episodes):
    """R = A + V holds of the advantages that were whitened afterwards, not of the whitened."""
    rewards, values, lengths = episodes
    mask = lengths_mask(lengths, 7)
    advantages, returns = gae(rewards, values, mask, 1.0, 0.9)
    whitened = whiten(advantages, mask, center=True)
    close(returns, advantages + jnp.where(mask, values, 0.0))
    assert jnp.max(jnp.abs(returns - whitened - jnp.where(mask, values, 0.0))) > 0.1
