"""Experts on a mesh are those of one device: outputs, gradients and answers, however they route."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax import dispatch
from glm_jax.decoding import rollout, row_keys
from glm_jax.mesh import MeshConfig, make_mesh, on_mesh
from glm_jax.sampling import Sampling
from glm_jax.sharding import placed

B, T = 8, 6
EXPERTS = {
    "model_type": "glm4_moe", "n_routed_experts": 16, "num_experts_per_tok": 4,
    "n_shared_experts": 1, "moe_intermediate_size": 24, "first_k_dense_replace": 1,
}  # fmt: skip
MESHES = {
    "expert 8": MeshConfig(expert=8),
    "expert 4, tensor 2": MeshConfig(expert=4, tensor=2),
    "data 2, expert 2, tensor 2": MeshConfig(data=2, expert=2, tensor=2),
    "fsdp 2, expert 4": MeshConfig(fsdp=2, expert=4),
}
on_every_mesh = pytest.mark.parametrize("shape", MESHES.values(), ids=MESHES)
TOKENS = np.random.default_rng(0).integers(8, 50, (B, T), np.int32)
MASK = np.arange(T)[None] < np.random.default_rng(1).integers(3, T + 1, B)[:, None]


def one_expert(model):
    """Every token takes the first K experts, which lie on one or two chips."""
    bias = model.blocks.experts.router_bias
    bias[...] = jnp.where(jnp.arange(16) < 4, 9.0, 0.0)[None]
    return model


def learned(model, tokens, mask):
    """Logits, and the gradient of a loss that every one of them matters to."""

    def loss(model):
        logits = model(tokens, mask)
        wanted = jax.nn.one_hot(jnp.roll(tokens, -1, axis=1), logits.shape[-1])
        return jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(logits), -1), where=mask), logits

    return jax.value_and_grad(loss, has_aux=True)(model)


def same(found, expected):
    for (path, a), b in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5, err_msg=name)


@on_every_mesh
@pytest.mark.parametrize("room", [dispatch.ROOM, 1], ids=["at once", "in shares"])
@pytest.mark.parametrize("route", [lambda model: model, one_expert], ids=["free", "one"])
def test_logits_and_gradients(tiny, shape, room, route, monkeypatch):
    monkeypatch.setattr(dispatch, "ROOM", room)
    model = route(tiny(**EXPERTS))
    expected = jax.jit(learned)(model, TOKENS, MASK)
    mesh = make_mesh(shape, [model.config])
    with on_mesh(mesh):
        found = jax.jit(learned)(placed(model, mesh), TOKENS, MASK)
    same(found, expected)
