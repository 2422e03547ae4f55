"""Experts on a mesh are those of one device: outputs, gradients and answers, however they route."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax import dispatch, stack
from glm_jax.decoding import rollout, row_keys
from glm_jax.mesh import MeshConfig, make_mesh, on_mesh
from glm_jax.sampling import Sampling
from glm_jax.sharding import placed
from glm_jax.train.plan.flops import Rounds
from glm_jax.train.plan.hlo import collectives

B, T = 8, 6
EXPERTS = {
    "model_type": "glm4_moe", "n_routed_experts": 16, "num_experts_per_tok": 4,
    "n_shared_experts": 1, "moe_intermediate_size": 24, "first_k_dense_replace": 1,
    "num_hidden_layers": 3,
}  # fmt: skip
MESHES = {
    "expert 8": MeshConfig(expert=8),
    "expert 4, tensor 2": MeshConfig(expert=4, tensor=2),
    "data 2, expert 2, tensor 2": MeshConfig(data=2, expert=2, tensor=2),
    "fsdp 2, expert 4": MeshConfig(fsdp=2, expert=4),
}
TOKENS = np.random.default_rng(0).integers(8, 50, (B, T), np.int32)
MASK = np.arange(T)[None] < np.random.default_rng(1).integers(3, T + 1, B)[:, None]


def routed(model, route):
    """Freely, or every token to the same experts, which lie on one chip or two."""
    bias = model.blocks.experts.router_bias
    if route == "one":
        bias[...] = jnp.where(jnp.arange(16) < 4, 9.0, 0.0)[None] + jnp.zeros_like(bias[...])
    return model


def learned(model, tokens, mask):
    """The gradient of a loss, and the logits."""

    def loss(model):
        logits = model(tokens, mask)
        wanted = jax.nn.one_hot(jnp.roll(tokens, -1, axis=1), logits.shape[-1])
        return jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(logits), -1), where=mask), logits

    return jax.grad(loss, has_aux=True)(model)


def same(found, expected):
    for (path, a), b in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def alone(tiny):
    """What one device finds, by route."""
    one = jax.jit(learned)
    return {r: one(routed(tiny(**EXPERTS), r), TOKENS, MASK) for r in ("free", "one")}


@pytest.mark.parametrize("shape", MESHES.values(), ids=MESHES)
def test_logits_and_gradients(tiny, alone, shape, monkeypatch):
    """Layers in a loop, computed again in the backward pass; in as many shares as there may be."""
    monkeypatch.setattr(dispatch, "ROOM", 1)
    monkeypatch.setattr(stack, "UNROLLED", 0)
    mesh = make_mesh(shape, [tiny(**EXPERTS).config])
    with on_mesh(mesh):
        program = jax.jit(lambda *given: learned(*given))
        for route, expected in alone.items():
            given = routed(tiny(**EXPERTS), route).rematerialised("full")
            same(program(placed(given, mesh), TOKENS, MASK), expected)


def test_answers(tiny):
    """And a step of decoding moves tokens alone: nothing as large as a matrix of one expert."""
    given = TOKENS, MASK, row_keys(jax.random.key(0), jnp.arange(B))

    def answers(model, *given):
        with jax.named_scope("generate"):
            return rollout(model, *given, Sampling(max_new_tokens=5))

    whole = tiny(**EXPERTS)
    mesh = make_mesh(MESHES["fsdp 2, expert 4"], [whole.config])
    with on_mesh(mesh):
        placed_whole = placed(whole, mesh)
        program = jax.jit(lambda *given: answers(*given)).lower(placed_whole, *given).compile()
        found = program(placed_whole, *given)
    same(found, jax.jit(answers)(whole, *given))
    sent = [c.bytes // c.times for c in collectives(program.as_text(), Rounds(5)) if c.decoding]
    assert 0 < max(sent) < whole.blocks.experts.gate[0, 0].nbytes


def test_rows_that_the_mesh_does_not_divide(tiny):
    layer = stack.layers(tiny(**EXPERTS).blocks)[0].experts
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 32)), jnp.float32)
    mesh = make_mesh(MESHES["data 2, expert 2, tensor 2"], [layer.config])
    with on_mesh(mesh):
        found = jax.jit(lambda layer, x: layer(x))(placed(layer, mesh), x)
    same(found, jax.jit(type(layer).__call__)(layer, x))


def test_no_chip_gathers_the_experts_of_a_layer(tiny):
    whole = tiny(**EXPERTS)
    mesh = make_mesh(MESHES["fsdp 2, expert 4"], [whole.config])
    with on_mesh(mesh):
        program = jax.jit(lambda m, *given: m(*given))
        text = program.lower(placed(whole, mesh), TOKENS, MASK).compile().as_text()
    largest = max(c.bytes for c in collectives(text, Rounds()) if c.kind == "all-gather")
    gate = whole.blocks.experts.gate
    assert largest < gate[0].nbytes


def test_the_backward_pass_keeps_nothing_of_a_share(tiny, monkeypatch):
    """Neither its rows nor, with them, the weights once more."""
    monkeypatch.setattr(dispatch, "ROOM", 1)
    layer, x = stack.layers(tiny(**EXPERTS).blocks)[0].experts, jnp.ones((B, T, 32))
    mesh = make_mesh(MESHES["expert 8"], [layer.config])
    with on_mesh(mesh):
        loss = lambda layer, x: jnp.sum(layer(x))  # noqa: E731
        traced = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(layer, x))
    assert "length=8" in traced
    assert "f32[2,32,24]" in traced and "f32[8,2,32,24]" not in traced
    assert f"f32[{B * T},32]" in traced and f"f32[8,{B * T},32]" not in traced
