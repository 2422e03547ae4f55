"""Eight devices are one: log-probs, losses, gradients, whole iterations, on every kind of mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.data.pair_batches import PairBatch
from glm_jax.mesh import MeshConfig, make_mesh, on_mesh
from glm_jax.sampling import Sampling
from glm_jax.sharding import placed, rows_split
from glm_jax.train import dpo, reward_step, sft
from glm_jax.train.advantages import whiten
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.iteration import init, ppo_step
from glm_jax.train.ppo.scores import PPOBatch
from glm_jax.train.reward_step import Ranking
from glm_jax.train.sft import SFTBatch
from glm_jax.train.update import WHOLE_BATCH, MemoryConfig, start

B, P, R, T = 16, 3, 6, 8
ADAMW = OptimizerConfig(learning_rate=1e-5)
SHAPE = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 4}
MESHES = {
    "fsdp 8": MeshConfig(fsdp=8),
    "fsdp 4, tensor 2": MeshConfig(fsdp=4, tensor=2),
    "fsdp 2, tensor 4": MeshConfig(fsdp=2, tensor=4),
    "data 2, fsdp 2, tensor 2": MeshConfig(data=2, fsdp=2, tensor=2),
    "data 8": MeshConfig(data=8),
}
CONFIG = PPOHyperparameters(
    sampling=Sampling(max_new_tokens=R, stop_ids=(1, 2, 3)), iterations=20, batch_size=B,
    kl_coefficient=0.1, whiten_rewards=True, whiten_advantages=True, supervised_batch_size=16,
    actor=ADAMW, critic=ADAMW,
)  # fmt: skip
on_every_mesh = pytest.mark.parametrize("shape", MESHES.values(), ids=MESHES)
UNCLIPPED = dataclasses.replace(ADAMW, max_grad_norm=None)
LAYERWISE = MemoryConfig(layerwise=True)


def tokens(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(4, 20, shape, np.int32)


def texts() -> SFTBatch:
    lengths = np.random.default_rng(1).integers(3, T + 1, B)
    mask = np.arange(T)[None] < lengths[:, None]
    return SFTBatch(tokens(B, T), mask, mask & (np.arange(T) > 1)[None])


def pair_batch() -> PairBatch:
    """Two pairs in a row: one token of a prompt, two and one of the responses to it."""
    (text, part, position), row = np.zeros((3, B, T), np.int32), np.arange(B)[:, None]
    text[:, :4], text[:, 4:] = 1, 2
    part[:], position[:] = np.tile([0, 1, 1, 2], 2), np.tile([0, 1, 2, 1], 2)
    ends = np.broadcast_to(np.array([[2, 3], [6, 7]], np.int32), (B, 2, 2))
    weights = (1.0 + row % 3 * np.ones(2)).astype(np.float32)
    return PairBatch(tokens(B, T), text, part, position, ends, 0.1 * weights, weights)


def ppo_batch(config: PPOHyperparameters) -> PPOBatch:
    supervised = None
    if config.supervised_coefficient:
        supervised = jax.tree.map(lambda x: np.stack([x] * config.updates), texts())
    rows = np.arange(B, dtype=np.int32)
    return PPOBatch(tokens(B, P), np.ones((B, P), bool), rows, np.zeros(B, np.float32), supervised)


def close(found, expected, atol=1e-5):
    paths, _ = zip(*jax.tree.leaves_with_path(expected), strict=True)
    for path, a, b in zip(paths, *map(jax.tree.leaves, (found, expected)), strict=True):
        name = jax.tree_util.keystr(path)
        # softmax does not see what a bias of keys adds where nothing is rotated: the gradient there
        # is rounding, which Adam takes for a direction
        if "k_bias" in name:
            a, b = (x[..., : x.shape[-1] // 2] for x in (a, b))
        np.testing.assert_allclose(a, b, atol=atol, rtol=1e-5, err_msg=name)


def parts(w: jax.Array) -> int:
    """Into how many different parts the array is split."""
    return len({str(shard.index) for shard in w.addressable_shards})


def stepped(kind, state, reference, memory=WHOLE_BATCH):
    optimiser = optimizer(UNCLIPPED if memory.layerwise else ADAMW, 10)
    batch, given = texts(), {"optimiser": optimiser, "memory": memory}
    if kind == "sft":
        return sft.step(state, batch, **given)
    if kind == "reward":
        return reward_step.step(state, pair_batch(), **given, ranking=Ranking(l2=0.01))
    pairs = dpo.DPOBatch(batch.tokens, batch.mask, batch.loss_mask)
    return dpo.step(state, reference, pairs, **given, beta=0.1)


def same_iteration(found, again, drawn, expected, metrics, completions):
    np.testing.assert_array_equal(drawn.tokens, completions.tokens)
    close(drawn.log_probs, completions.log_probs)
    close(found.trainable, expected.trainable)
    for name, value in metrics.items():
        np.testing.assert_allclose(again[name], value, rtol=2e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("shape", [None, *list(MESHES.values())[:3]], ids=str)
def test_a_layerwise_ppo_iteration_is_the_ordinary_one(tiny, shape):
    """One device with the ordinary update against the layer-wise one, on one and on eight."""
    config = dataclasses.replace(CONFIG, actor=UNCLIPPED, critic=UNCLIPPED)
    models = tiny(seed=0, **SHAPE), tiny(seed=1, **SHAPE), tiny("reward", seed=2, **SHAPE)
    frozen, batch = init(config, *models).frozen, ppo_batch(config)
    whole = init(config, *models).replace(frozen=None)
    state = init(dataclasses.replace(config, layerwise=True), *models).replace(frozen=None)
    expected = ppo_step(whole, frozen, batch)
    mesh = shape and make_mesh(shape, [models[0].config])
    with on_mesh(mesh):
        found = ppo_step(placed(state, mesh), placed(frozen, mesh), batch)
    same_iteration(*found, *expected)
    close(found[0].optimiser, expected[0].optimiser)


@on_every_mesh
def test_a_ppo_iteration(tiny, shape):
    """With supervised data, whitening and micro-batches; weights and moments stay split."""
    config = dataclasses.replace(CONFIG, update_rows=8, scoring_rows=8)
    models = tiny(seed=0, **SHAPE), tiny(seed=1, **SHAPE), tiny("reward", seed=2, **SHAPE)
    state = init(config, *models)
    frozen, state = state.frozen, state.replace(frozen=None)
    batch = ppo_batch(config)
    expected, metrics, completions = ppo_step(jax.tree.map(jnp.copy, state), frozen, batch)
    mesh = make_mesh(shape, [models[0].config])
    with on_mesh(mesh):
        found, again, drawn = ppo_step(placed(state, mesh), placed(frozen, mesh), batch)
    same_iteration(found, again, drawn, expected, metrics, completions)
    moments = found.optimiser.critic["blocks"][0].mu
    for w in (found.trainable.actor.blocks.q[...], moments.q[...]):
        assert parts(w) == shape.fsdp * shape.tensor
    with on_mesh(mesh):  # what comes out goes in again, without another compilation
        compiled = ppo_step._cache_size()
        ppo_step(found, placed(frozen, mesh), batch)
        assert ppo_step._cache_size() == compiled


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *(("reward", shape) for shape in list(MESHES.values())[:3]),
        ("sft", MeshConfig(fsdp=4, tensor=2)),
        ("dpo", MeshConfig(fsdp=4, tensor=2)),
    ],
    ids=str,
)
@pytest.mark.parametrize("memory", [WHOLE_BATCH, LAYERWISE], ids=["whole", "layerwise"])
def test_a_training_step(tiny, shape, kind, memory):
    model, reference = tiny("reward" if kind == "reward" else "lm", **SHAPE), tiny(**SHAPE, seed=1)
    mesh = make_mesh(shape, [model.config])
    state = start(model, optimizer(UNCLIPPED if memory.layerwise else ADAMW, 10))
    expected, metrics = stepped(kind, jax.tree.map(jnp.copy, state), reference, memory)
    with on_mesh(mesh):
        found, again = stepped(kind, placed(state, mesh), placed(reference, mesh), memory)
    close(found, expected)
    close(found.model, expected.model, atol=1e-6)  # a tenth of a step
    close(again, metrics)
    assert parts(found.model.blocks.q[...]) == shape.fsdp * shape.tensor


def test_a_layerwise_step_of_experts(tiny):
    experts = {
        "model_type": "glm4_moe", "attention_bias": False, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 8,
        "first_k_dense_replace": 1,
    }  # fmt: skip
    model, shape = tiny(**SHAPE, **experts), MeshConfig(fsdp=2, expert=2, tensor=2)
    mesh = make_mesh(shape, [model.config])
    state = start(model, optimizer(UNCLIPPED, 10))
    expected, metrics = stepped("sft", jax.tree.map(jnp.copy, state), None, LAYERWISE)
    with on_mesh(mesh):
        found, again = stepped("sft", placed(state, mesh), None, LAYERWISE)
    close(found, expected)
    close(again, metrics)
    assert parts(found.model.blocks.experts.gate[...]) == 8


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo"])
@pytest.mark.parametrize(
    "memory", [{"rows": 4}, {"remat": "full"}, {"remat": "products", "rows": 8}]
)
def test_memory_levers_change_nothing(tiny, kind, memory):
    model, reference = tiny("reward" if kind == "reward" else "lm", **SHAPE), tiny(**SHAPE, seed=1)
    state = start(model, optimizer(ADAMW, 10))
    expected = stepped(kind, jax.tree.map(jnp.copy, state), reference)
    close(stepped(kind, state, reference, MemoryConfig(**memory)), expected)


@on_every_mesh
def test_whitening(tiny, shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(B, T)), jnp.float32)
    mask = jnp.asarray(texts().mask)
    expected = whiten(x, mask, center=True)
    mesh = make_mesh(shape, [tiny(**SHAPE).config])
    with on_mesh(mesh):
        found = jax.jit(lambda *given: whiten(*rows_split(given), center=True))(x, mask)
    close(found, expected)
