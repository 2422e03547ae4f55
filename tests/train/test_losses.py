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


def test_a_margin_shifts_the_difference_and_centring_sees_the_sum_alone():
    chosen, rejected, margin = array(2.0, 0.0), array(1.0, 3.0), array(0.5, -1.0)
    plain = losses.ranking_loss(chosen - margin, rejected)
    close(losses.ranking_loss(chosen, rejected, margin=margin), plain)
    centred = losses.ranking_loss(chosen, rejected, centring=0.1)
    close(centred - losses.ranking_loss(chosen, rejected), [0.9, 0.9])
    both = losses.ranking_loss(chosen, rejected, 0.1, margin=margin, centring=0.1)
    close(both, plain + 0.1 * array(5.0, 9.0) + 0.9)  # neither of them sees the margin


def test_label_smoothing_mixes_in_the_loss_of_the_other_label():
    chosen, rejected = array(2.0, 0.0), array(1.0, 3.0)
    smoothed = losses.ranking_loss(chosen, rejected, label_smoothing=0.2)
    close(smoothed, array(0.3132617, 3.0485873) + 0.2 * array(1.0, -3.0), 1e-6)
    # the least loss is where the chance of the label is 0.8
    at_best = array(np.log(4.0))
    slope = jax.grad(lambda d: losses.ranking_loss(d, 0 * d, label_smoothing=0.2)[0])(at_best)
    close(slope, [0.0])


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


def test_dual_clip_bounds_what_a_bad_token_can_cost():
    """Beyond ratio 3 a negative advantage has no gradient; a positive one is as it was."""
    ratio, advantages = array(5.0, 2.0, 5.0, 0.5), array(-2.0, -2.0, 2.0, 2.0)

    def summed(log_probs):
        loss = losses.policy_loss(log_probs, jnp.zeros((1, 4)), advantages[None], 0.2, 3.0)
        return loss.sum(), loss

    gradient, loss = jax.grad(summed, has_aux=True)(jnp.log(ratio)[None])
    close(loss, [[6.0, 4.0, -2.4, -1.0]], 1e-5)
    close(gradient, [[0.0, 4.0, 0.0, -1.0]], 1e-5)


def test_clipped_tokens_are_those_whose_gradient_is_gone():
    advantages, ratios, _, slopes = array(*zip(*SIDES, strict=True))
    found = losses.policy_clipped(ratios[None], advantages[None], 0.2)
    assert found.tolist() == [(slopes == 0).tolist()] and found.any() and not found.all()
    assert not losses.policy_clipped(ratios[None], jnp.zeros((1, len(SIDES))), 0.2).any()


def test_values_may_go_unclipped():
    value, old, target = array(2.0)[None], array(1.0)[None], array(3.0)[None]
    close(losses.value_loss(value, old, target, None), [[0.5]])
    gradient = jax.grad(lambda v: losses.value_loss(v, old, target, None).sum())(value)
    close(gradient, [[-1.0]])


def test_entropy_by_hand():
    """A fair coin's is log 2; 3/4 to 1/4; a sure thing's is 0, and none is below."""
    logits = jnp.log(array(0.5, 0.75, 1.0)), jnp.log(array(0.5, 0.25, 1e-30))
    found = losses.entropy(jnp.stack(logits, axis=-1)[None] + 3.0)
    close(found, [[LOG2, 0.562335, 0.0]], 1e-5)


def test_losses_and_gradients_do_not_depend_on_how_the_rows_are_split():
    """Sums and counts of micro-batches add up; averages of their averages would not."""
    rng = np.random.default_rng(0)
    new, old, advantages = jnp.asarray(rng.normal(size=(3, 6, 5)), jnp.float32)
    mask = jnp.arange(5)[None] < jnp.array([1, 2, 5, 4, 3, 5])[:, None]

    def total(new, rows):
        loss = losses.policy_loss(new[rows], old[rows], advantages[rows], 0.2)
        return losses.masked(loss, mask[rows])

    def whole(new):
        return total(new, slice(None)).mean

    def split(new):
        sums, counts = zip(*(total(new, slice(a, a + 2)) for a in (0, 2, 4)), strict=True)
        return losses.Total(sum(sums), sum(counts)).mean

    expected, actual = (jax.value_and_grad(f)(new) for f in (whole, split))
    close(actual[0], expected[0])
    close(actual[1], expected[1])
    naive = np.mean([total(new, slice(a, a + 2)).mean for a in (0, 2, 4)])
    assert abs(naive - expected[0]) > 1e-3
