import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.data.batches import pair_arrays, span_mask
from glm_jax.data.pair_batches import PairBatches
from glm_jax.data.records import Pair
from glm_jax.mesh import MeshConfig, make_mesh, on_mesh
from glm_jax.sharding import placed
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.losses import ranking_loss
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.reward_step import Ranking, pair_scores, scored, step
from glm_jax.train.update import MemoryConfig, start

WORDS = [f"w{i}" for i in range(12)]
TOKENIZER = Tokenizer.word_level(WORDS)
N = 32


def text(rng, n):
    return " ".join(rng.choice(WORDS[1:], n))


def pairs_of(rng, n):
    """The preferred response holds w0, the other, of any length too, does not."""
    return [
        Pair(
            id=str(i), prompt=[{"role": "user", "content": text(rng, rng.integers(1, 4))}],
            chosen=f"{text(rng, rng.integers(1, 4))} w0 {text(rng, rng.integers(1, 3))}",
            rejected=text(rng, rng.integers(1, 7)),
        )
        for i in range(n)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def arrays():
    return pair_arrays(pairs_of(np.random.default_rng(0), N), TOKENIZER, 16)[0]


def batches_of(arrays, margins=0.0, weights=1.0, **settings):
    margins, weights = (np.full(N, x, np.float32) for x in (margins, weights))
    return PairBatches(arrays, margins, weights, batch=N, steps=1, **({"unit": 8} | settings))


def by_pair(batches, batch, scores):
    """[2, N] in the order of the arrays."""
    found = np.full((2, N), np.nan)
    for r, pairs in enumerate(batches.plan.batches[0]):
        for side in range(2):
            found[side, pairs] = scores[side][r, : len(pairs)]
    return found


def one_by_one(model, arrays):
    """Each dialogue in a row of its own, right-padded: the plain path."""
    sides = []
    for tokens, lengths in (arrays[0:2], arrays[2:4]):
        sides.append(model(tokens, span_mask(np.zeros_like(lengths), lengths, tokens.shape[1])))
    return np.stack(sides)


def swapped(batch):
    return batch._replace(ends=batch.ends[..., ::-1])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mesh", [None, MeshConfig(fsdp=4, tensor=2), MeshConfig(data=8)], ids=str)
def test_scores_of_packed_pairs_are_those_of_single_dialogues(tiny, arrays, shared, mesh):
    """Whether the prompt lies in the row once for both sides or twice; also on eight devices."""
    model = tiny("reward", num_attention_heads=4, num_key_value_heads=2)
    expected = one_by_one(model, arrays)
    batches = batches_of(arrays, shared=shared)
    assert batches.plan.places > 1  # several pairs in a row
    mesh = mesh and make_mesh(mesh, [model.config])
    with on_mesh(mesh):
        found = scored(placed(model, mesh), batches[0], dtype="float32", attention="plain")
    np.testing.assert_allclose(by_pair(batches, batches[0], found), expected, atol=1e-5)


def test_swapping_the_sides_negates_the_margin_exactly(tiny, arrays):
    model, batch = tiny("reward"), batches_of(arrays)[0]
    chosen, rejected = pair_scores(model, batch)
    other_chosen, other_rejected = pair_scores(model, swapped(batch))
    assert jnp.any(chosen != rejected)
    np.testing.assert_array_equal(other_chosen - other_rejected, -(chosen - rejected))


def test_a_fresh_head_prefers_neither_side(tiny, arrays):
    """Over fresh models: accuracy about one half, loss about log 2, scores of about unit size."""
    losses, accuracies, scores = [], [], []
    for seed in range(8):
        both = one_by_one(tiny("reward", seed), arrays)
        losses.append(np.mean(ranking_loss(*map(jnp.asarray, both))))
        accuracies.append(np.mean(both[0] > both[1]))
        scores.append(both)
    assert np.mean(losses) == pytest.approx(np.log(2), abs=0.03)
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.15)
    assert 0.3 < np.std(scores) < 3.0


def test_a_few_steps_learn_a_preference(tiny, arrays):
    optimiser, batch = optimizer(OptimizerConfig(learning_rate=1e-2), 100), batches_of(arrays)[0]
    settings = {"optimiser": optimiser, "ranking": Ranking(l2=0.05)}
    state = start(tiny("reward"), optimiser)
    same = batch._replace(ends=batch.ends[..., [0, 0]])
    _, metrics = step(start(tiny("reward"), optimiser), same, **settings)
    assert metrics["accuracy"] == 0.5 and metrics["margin"] == 0.0  # ties count one half
    for _ in range(100):
        given = jax.tree.leaves(state)
        state, metrics = step(state, batch, **settings)
    assert metrics["accuracy"] == 1.0 and metrics["margin"] > 1.0
    assert abs(metrics["score"]) < 1.0  # the level that l2 holds
    assert all(x.is_deleted() for x in given)  # the step wrote over the given state


def test_the_loss_is_the_weighted_mean_over_pairs(tiny, arrays):
    """However they are packed, and in however many micro-batches they go through."""
    rng, model = np.random.default_rng(3), tiny("reward")
    margins, weights = rng.normal(size=N), rng.uniform(0.1, 2, N)
    ranking = Ranking(l2=0.1, centring=0.05, label_smoothing=0.1)
    chosen, rejected = one_by_one(model, arrays)
    gaps = chosen - rejected - margins
    losses = 0.9 * np.logaddexp(0, -gaps) + 0.1 * np.logaddexp(0, gaps)
    losses += 0.1 * (chosen**2 + rejected**2) + 0.05 * (chosen + rejected) ** 2
    expected = np.sum(weights * losses) / np.sum(weights)
    optimiser = optimizer(OptimizerConfig(learning_rate=1e-3, epsilon=1.0), 10)
    states = []
    for unit, memory in [(8, {}), (16, {}), (8, {"rows": 2}), (8, {"remat": "full", "rows": 4})]:
        batches = batches_of(arrays, margins, weights, unit=unit)
        memory = MemoryConfig(**memory)
        if memory.rows:
            memory = dataclasses.replace(memory, rows=batches.plan.rows // memory.rows)
        state, metrics = step(
            start(tiny("reward"), optimiser), batches[0], optimiser=optimiser, ranking=ranking,
            memory=memory,
        )  # fmt: skip
        assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
        scores = np.stack([chosen, rejected])
        assert metrics["score"] == pytest.approx(np.average(scores.mean(0), weights=weights), 1e-4)
        states.append(state.model)
    for other in states[1:]:
        for a, b in zip(*map(jax.tree.leaves, (other, states[0])), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-7)
