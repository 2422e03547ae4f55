"""Operations, counted with how often loops run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from benchmarks.roofline import forward_flops
from glm_jax import dispatch
from glm_jax.attention import splash
from glm_jax.layers import attend
from glm_jax.mesh import MeshConfig, make_mesh, on_mesh
from glm_jax.train.plan.flops import Rounds, flops

A = jnp.ones((4, 8))
W = jnp.ones((8, 8))
ONE = 2 * 4 * 8 * 8


def scanned(a):
    return jax.lax.scan(lambda x, _: (x @ W, None), a, length=5)[0]


def drawn(a):
    with jax.named_scope("decode"):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 9.0, lambda x: x @ W, a)


def branched(a):
    return jax.lax.cond(a[0, 0] > 0, lambda x: x @ W @ W, lambda x: x @ W, a)


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (lambda a: a @ W, 1), (scanned, 5), (drawn, 7), (branched, 2), (jax.jit(scanned), 5),
        (lambda a: jax.lax.scan(lambda x, _: (scanned(x), None), a, length=3)[0], 15),
        (jax.vmap(lambda row: row @ W), 1),
    ],
)  # fmt: skip
def test_products(function, products):
    assert flops(jax.make_jaxpr(function)(A), Rounds(tokens=7)) == products * ONE


def test_what_is_computed_again_counts_again():
    def loss(w, remat):
        layer = lambda x: jnp.tanh(x @ w)  # noqa: E731
        return jnp.sum((jax.checkpoint(layer) if remat else layer)(A) @ w)

    plain, again = (
        flops(jax.make_jaxpr(lambda w, remat=remat: jax.grad(loss)(w, remat))(W))
        for remat in (False, True)
    )
    assert again == plain + ONE


def test_what_each_device_computes_is_counted_for_all():
    mesh = make_mesh(MeshConfig(data=4, fsdp=2), [])
    rows = PartitionSpec(("data", "fsdp"))
    split = jax.shard_map(lambda x: x @ W, mesh=mesh, in_specs=rows, out_specs=rows)
    assert flops(jax.make_jaxpr(split)(jnp.ones((32, 8)))) == 8 * ONE


@pytest.mark.parametrize("room", [dispatch.ROOM, 1], ids=["at once", "in shares"])
@pytest.mark.parametrize("shape", [None, MeshConfig(expert=8), MeshConfig(fsdp=2, expert=4)])
def test_a_token_counts_for_each_of_its_experts(tiny, shape, room, monkeypatch):
    """Not for all that there are, nor for the room that a chip has for more."""
    monkeypatch.setattr(dispatch, "ROOM", room)
    D, E, K, F, X = 16, 16, 4, 24, 48
    blocks = tiny(
        model_type="glm4_moe", attention_bias=False, n_routed_experts=E, num_experts_per_tok=K,
        n_shared_experts=1, moe_intermediate_size=F, num_hidden_layers=1,
    ).blocks  # fmt: skip
    layer, x = jax.tree.map(lambda w: w[0], blocks.experts), jnp.ones((8, 6, D))
    with on_mesh(shape and make_mesh(shape, [layer.config])):
        forward = flops(jax.make_jaxpr(lambda layer, x: layer(x))(layer, x))
        loss = lambda layer, x: jnp.sum(layer(x))  # noqa: E731
        both = flops(jax.make_jaxpr(jax.grad(loss, (0, 1)))(layer, x))
    experts, others = 2 * X * K * 3 * D * F, 2 * X * (D * E + 3 * D * F)
    assert forward == experts + others
    again = 1 if room == 1 and shape else 0  # shares compute their rows again
    assert both == (3 + again) * experts + 3 * others


def test_a_kernel_counts_as_the_plain_path():
    """The whole square, of causal attention too; its length is one that blocks divide."""
    q, k, v = jnp.ones((3, 1024, 4, 8)), jnp.ones((3, 1024, 2, 8)), jnp.ones((3, 1024, 2, 8))
    real, all_see = jnp.ones((3, 1024), bool), jnp.ones((3, 1024, 1024), bool)
    kernel = jax.make_jaxpr(splash)(q, k, v, real)
    plain = jax.make_jaxpr(attend)(q, k.transpose(0, 2, 3, 1), v.swapaxes(1, 2), all_see)
    assert flops(kernel) == flops(plain) == 2 * 2.0 * 3 * 4 * 1024**2 * 8


def test_a_model(tiny):
    """As counted by hand, but for attention, of which the hand counts half of the square."""
    model, T = tiny(hidden_size=64, num_hidden_layers=2), 6
    tokens, mask = jnp.zeros((3, T), jnp.int32), jnp.ones((3, T), bool)
    found = flops(jax.make_jaxpr(lambda m: m.hidden(tokens, mask))(model))
    config, ends = model.config, np.full(3, T)
    square = 4.0 * config.num_attention_heads * config.head_dim * 3
    halves = square * T * (T + 1) / 2 * config.num_hidden_layers
    whole = square * T * T * config.num_hidden_layers
    assert found == forward_flops(config, np.zeros(3), ends) - halves + whole
