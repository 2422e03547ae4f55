"""The layer-wise update is the ordinary one, a layer at a time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.errors import InputError
from glm_jax.train import layerwise
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.sft import SFTBatch, loss
from glm_jax.train.update import MemoryConfig, start, update

# with so large an epsilon Adam's step is in proportion to the gradient: rounding stays small
CONFIG = OptimizerConfig(
    learning_rate=0.1,
    epsilon=1.0,
    max_grad_norm=None,
    weight_decay=0.1,
    schedule="cosine",
    warmup_steps=1,
)
EXPERTS = {
    "model_type": "glm4_moe", "attention_bias": False, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 8,
    "first_k_dense_replace": 1, "num_hidden_layers": 3,
}  # fmt: skip


def batch() -> SFTBatch:
    rng = np.random.default_rng(0)
    mask = np.arange(9)[None] < rng.integers(4, 10, (6, 1))
    tokens, told = rng.integers(4, 20, (6, 9), np.int32), mask & (np.arange(9) > 1)[None]
    return SFTBatch(*map(jnp.asarray, (tokens, mask, told)))


def stepped(model, memory: MemoryConfig, config: OptimizerConfig = CONFIG):
    """Three steps, under a schedule whose counts move on."""
    optimiser, texts = optimizer(config, 10), batch()

    @jax.jit
    def step(state):
        total = lambda model, rows: (loss(model, rows).sum, {})  # noqa: E731
        return update(state, total, texts, 30.0, optimiser, memory)

    state = start(model, optimiser)
    for _ in range(3):
        state, metrics = step(state)
    return state, metrics


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ({}, {}), ({"num_hidden_layers": 5}, {}), ({"model_type": "glm4"}, {}), (EXPERTS, {}),
        ({}, {"max_grad_norm": 0.01, "norm_pass": True}), ({}, {"mu_dtype": "bfloat16"}),
        # large enough that its moments are factored
        ({"hidden_size": 128, "intermediate_size": 160, "attention_bias": False},
         {"kind": "adafactor", "epsilon": 1e-8, "learning_rate": 0.01}),
    ],
    ids=["two", "five", "sandwich", "experts", "clipped", "bfloat16", "adafactor"],
)  # fmt: skip
def test_three_steps_are_the_ordinary_ones(tiny, shape, changes):
    model, config = tiny(**shape), dataclasses.replace(CONFIG, **changes)
    expected, metrics = stepped(model, MemoryConfig(), config)
    found, again = stepped(model, MemoryConfig(layerwise=True), config)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (a, b)), atol=2e-6)
    for name in metrics:
        np.testing.assert_allclose(again[name], metrics[name], rtol=1e-5)


def test_what_is_not_finite_changes_nothing(tiny):
    model, optimiser = tiny(), optimizer(CONFIG, 10)
    state = start(model, optimiser)

    def broken(model):
        return loss(model, batch()).sum * jnp.nan, None

    done = jax.jit(lambda s: layerwise.update(broken, s.model, s.optimiser, optimiser, "float32"))(
        state
    )
    assert not done.finite
    for a, b in zip(
        *map(jax.tree.leaves, ((done.model, done.optimiser), (model, state.optimiser))), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "actor.max_grad_norm"),
        ({"actor": CONFIG, "critic": CONFIG, "update_rows": 8}, "update_rows"),
        ({"actor": CONFIG, "critic": CONFIG, "widths": 2}, "widths"),
        ({"actor": CONFIG, "critic": CONFIG, "remat": "products"}, "remat products"),
        ({"actor": CONFIG, "critic": CONFIG, "share_trunk": True}, "share_trunk"),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes, told):
    with pytest.raises(InputError, match=told):
        dataclasses.replace(PPOHyperparameters(), layerwise=True, **changes)


def test_and_in_training_of_one_model():
    whole = OptimizerConfig(learning_rate=1.0)
    with pytest.raises(InputError, match=r"optimizer\.max_grad_norm"):
        MemoryConfig(layerwise=True).row_counts(8, whole)
    with pytest.raises(InputError, match="leave out rows"):
        MemoryConfig(layerwise=True, rows=4).row_counts(8, CONFIG)
