import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.train import losses

LOG2 = 0.6931472


def array(*values):
    return jnp.array(values, jnp.float32)


def close(actual, expected, tolerance=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_masked_mean_ignores_what_lies_outside():
    values = array(1.0, jnp.nan, 3.0, jnp.inf)
    mask = jnp.array([True, False, True, False])
    total = losses.masked(values, mask)
    close([total.sum, total.count, total.mean], [4.0, 2.0, 2.0])
    # and no gradient comes from there: 0 * nan would be nan
    close(jax.grad(lambda v: losses.masked(v, mask).mean)(values), [0.5, 0.0, 0.5, 0.0])


def test_nothing_to_average_gives_zero():
    assert losses.masked(array(5.0), jnp.array([False])).mean == 0.0


def test_next_token_loss_is_summed_nats():
    log_probs = jnp.log(array(0.5, 0.25, 0.1))[None]
    total = losses.next_token_loss(log_probs, jnp.array([[True, True, False]]))
    close([total.sum, total.count], [3 * LOG2, 2.0])


def test_equal_scores_give_log_2():
    close(losses.ranking_loss(array(1.5), array(1.5), 0.0), [LOG2])


def test_ranking_loss_by_hand():
    close(losses.ranking_loss(array(2.0, 0.0), array(1.0, 3.0), 0.0), [0.3132617, 3.0485873])
    close(losses.ranking_loss(array(2.0), array(1.0), 0.1), [0.3132617 + 0.1 * (4 + 1)])


def test_ranking_loss_survives_large_margins():
    close(losses.ranking_loss(array(500.0, -500.0), array(-500.0, 500.0), 0.0), [0.0, 1000.0])


def test_plain_ranking_loss_does_not_see_the_level_and_l2_holds_it():
    chosen, rejected = array(0.3, -1.0), array(0.1, 2.0)
    plain = losses.ranking_loss(chosen, rejected, 0.0)
    close(losses.ranking_loss(chosen + 7.0, rejected + 7.0, 0.0), plain, 1e-5)
    assert jnp.all(losses.ranking_loss(chosen + 7.0, rejected + 7.0, 0.01) > plain)


def test_ranking_gradient_is_the_chance_of_being_wrong():
    gradient = jax.grad(lambda c, r: losses.ranking_loss(c, r, 0.0).sum(), argnums=(0, 1))
    chosen, rejected = gradient(array(2.0, 0.0), array(1.0, 3.0))
    wrong = [0.26894143, 0.95257413]  # sigmoid(-1), sigmoid(3)
    close(chosen, np.negative(wrong))
    close(rejected, wrong)


@pytest.mark.parametrize("l2", [0.01, 0.1, 1.0])
def test_one_pairs_optimum(l2):
    """r_w = -r_l = d/2 with sigmoid(-d) = l2 * d, found here by Newton's method."""

    def loss(scores):
        return losses.ranking_loss(scores[:1], scores[1:], l2)[0]

    @jax.jit
    def newton(scores):
        return scores - jnp.linalg.solve(jax.hessian(loss)(scores), jax.grad(loss)(scores))

    scores = array(0.5, 0.3)
    for _ in range(20):
        scores = newton(scores)
    d = scores[0] - scores[1]
    close(scores, [d / 2, -d / 2], 1e-4)
    close(jax.nn.sigmoid(-d), l2 * d, 1e-4)


def test_dpo_starts_at_log_2_and_takes_ratios_to_the_reference():
    chosen, rejected = array(-10.0, -3.0), array(-12.0, -1.0)
    close(losses.dpo_loss(chosen, rejected, chosen, rejected, 0.5), [LOG2, LOG2])
    # beta ((-10 + 11) - (-12 + 9)) = 2: -log sigmoid(2)
    close(losses.dpo_loss(chosen[:1], rejected[:1], array(-11.0), array(-9.0), 0.5), [0.126928])


# (advantage, ratio) -> loss and its gradient by log p, with clip 0.2
SIDES = [
    (2.0, 1.5, -2.4, 0.0),  # good enough already: clipped
    (2.0, 0.5, -1.0, -1.0),  # a good token lost: live
    (2.0, 1.1, -2.2, -2.2),
    (-2.0, 0.5, 1.6, 0.0),  # bad and avoided enough: clipped
    (-2.0, 1.5, 3.0, 3.0),  # bad and more likely: live
    (2.0, 1.0, -2.0, -2.0),  # where training starts, the two branches tie: the gradient is whole
    (-2.0, 1.0, 2.0, 2.0),
]


@pytest.mark.parametrize(("advantage", "ratio", "loss", "slope"), SIDES)
def test_policy_loss_clips_one_side_of_each_sign(advantage, ratio, loss, slope):
    old = array(-1.3)[None]
    new = old + jnp.log(array(ratio))[None]

    def summed(log_probs):
        return losses.policy_loss(log_probs, old, array(advantage)[None], 0.2).sum()

    value, gradient = jax.value_and_grad(summed)(new)
    close(value, loss, 1e-5)
    close(gradient, [[slope]], 1e-5)


# (V, V_old, R) -> loss and its gradient by V, with clip 0.2
VALUES = [
    (1.0, 1.0, 3.0, 2.0, -2.0),  # the start: the gradient is whole
    (2.0, 1.0, 3.0, 1.62, 0.0),  # moved more than 0.2 towards R: 0.5 (1.2 - 3)^2, no gradient
    (0.0, 1.0, 3.0, 4.5, -3.0),  # moved away from R: live
    (1.1, 1.0, 3.0, 1.805, -1.9),
]


@pytest.mark.parametrize(("value", "old", "target", "loss", "slope"), VALUES)
def test_value_loss_by_hand(value, old, target, loss, slope):
    def summed(values):
        return losses.value_loss(values, array(old)[None], array(target)[None], 0.2).sum()

    actual, gradient = jax.value_and_grad(summed)(array(value)[None])
    close(actual, loss, 1e-5)
    close(gradient, [[slope]], 1e-5)
