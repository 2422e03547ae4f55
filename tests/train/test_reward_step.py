import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.data.batches import pair_arrays
from glm_jax.data.records import Pair
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import reward
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.update import start

WORDS = [f"w{i}" for i in range(12)]
TOKENIZER = Tokenizer.word_level(WORDS)


def text(rng, n):
    return " ".join(rng.choice(WORDS[1:], n))


@pytest.fixture(scope="module")
def batch():
    """The preferred response holds w0, the other, of any length too, does not."""
    rng = np.random.default_rng(0)
    pairs = [
        Pair(
            id=str(i), prompt=[{"role": "user", "content": text(rng, rng.integers(1, 4))}],
            chosen=f"{text(rng, rng.integers(1, 4))} w0 {text(rng, rng.integers(1, 3))}",
            rejected=text(rng, rng.integers(1, 7)),
        )
        for i in range(32)
    ]  # fmt: skip
    return reward.batch_of(pair_arrays(pairs, TOKENIZER, 16)[0], np.arange(32))


def swapped(batch):
    return reward.PairBatch(batch.rejected, batch.rejected_mask, batch.chosen, batch.chosen_mask)


def test_swapping_the_sides_negates_the_margin_exactly(tiny, batch):
    model = tiny("reward")
    chosen, rejected = reward.pair_scores(model, batch)
    other_chosen, other_rejected = reward.pair_scores(model, swapped(batch))
    assert jnp.any(chosen != rejected)
    np.testing.assert_array_equal(other_chosen - other_rejected, -(chosen - rejected))


def test_scores_do_not_depend_on_pads_or_on_the_rest_of_the_batch(tiny, batch):
    model = tiny("reward")
    chosen, _ = reward.pair_scores(model, batch)
    row = reward.PairBatch(*(np.pad(x[3:4], ((0, 0), (0, 5))) for x in batch))
    np.testing.assert_allclose(reward.pair_scores(model, row)[0], chosen[3:4], rtol=1e-5)


def test_a_fresh_head_prefers_neither_side(tiny, batch):
    """Over fresh models: accuracy about one half, loss about log 2, scores of about unit size."""
    losses, accuracies, scores = [], [], []
    for seed in range(8):
        both = reward.pair_scores(tiny("reward", seed), batch)
        losses.append(jnp.mean(reward.ranking_loss(*both, 0.0)))
        accuracies.append(jnp.mean(both[0] > both[1]))
        scores.append(jnp.stack(both))
    assert np.mean(losses) == pytest.approx(np.log(2), abs=0.03)
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.15)
    assert 0.3 < np.std(scores) < 3.0


def test_a_few_steps_learn_a_preference(tiny, batch):
    optimiser = optimizer(OptimizerConfig(learning_rate=1e-2), 100)
    state = start(tiny("reward"), optimiser)
    same = batch._replace(rejected=batch.chosen, rejected_mask=batch.chosen_mask)
    _, metrics = reward.step(start(tiny("reward"), optimiser), same, optimiser=optimiser, l2=0.05)
    assert metrics["accuracy"] == 0.5 and metrics["margin"] == 0.0  # ties count one half
    for _ in range(100):
        given = jax.tree.leaves(state)
        state, metrics = reward.step(state, batch, optimiser=optimiser, l2=0.05)
    assert metrics["accuracy"] == 1.0 and metrics["margin"] > 1.0
    assert abs(metrics["score"]) < 1.0  # the level that l2 holds
    assert all(x.is_deleted() for x in given)  # the step wrote over the given state
