"""Operations, counted with how often loops run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from benchmarks.roofline import forward_flops
from glm_jax.attention import splash
from glm_jax.layers import attend
from glm_jax.mesh import MeshConfig, make_mesh, on_mesh
from glm_jax.train.plan.flops import flops

A = jnp.ones((4, 8))
W = jnp.ones((8, 8))
ONE = 2 * 4 * 8 * 8


def scanned(a):
    return jax.lax.scan(lambda x, _: (x @ W, None), a, length=5)[0]


def drawn(a):
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
    assert flops(jax.make_jaxpr(function)(A), tokens=7) == products * ONE


def test_what_is_computed_again_counts_again():
    def loss(w, remat):
        layer = lambda x: jnp.tanh(x @ w)  # noqa: E731
        return jnp.sum((jax.checkpoint(layer) if remat else layer)(A) @ w)

    plain, again = (
        flops(jax.make_jaxpr(lambda w, remat=remat: jax.grad(loss)(w, remat))(W), 1)
        for remat in (False, True)
    )
    assert again == plain + ONE


def test_a_kernel_counts_as_the_plain_path():
    """The whole square, of causal attention too; its length is one that blocks divide."""
    q, k, v = jnp.ones((3, 1024, 4, 8)), jnp.ones((3, 1024, 2, 8)), jnp.ones((3, 1024, 2, 8))
    real, all_see = jnp.ones((3, 1024), bool), jnp.ones((3, 1024, 1024), bool)
    kernel = jax.make_jaxpr(splash)(q, k, v, real)
    plain = jax.make_jaxpr(attend)(q, k.transpose(0, 2, 3, 1), v.swapaxes(1, 2), all_see)
    assert flops(kernel, 1) == flops(plain, 1) == 2 * 2.0 * 3 * 4 * 1024**2 * 8


def test_each_device_of_a_mesh_counts(tiny):
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2), [tiny(num_key_value_heads=2).config])
    rows = P(("fsdp", "group"))

    def product(a):
        return jax.shard_map(lambda a: a @ W, in_specs=rows, out_specs=rows)(a)

    with on_mesh(mesh):
        assert flops(jax.make_jaxpr(product)(jnp.ones((16, 8))), 1) == 4 * ONE


def test_a_model(tiny):
    """As counted by hand, but for attention, of which the hand counts half of the square."""
    model, T = tiny(hidden_size=64, num_hidden_layers=2), 6
    tokens, mask = jnp.zeros((3, T), jnp.int32), jnp.ones((3, T), bool)
    found = flops(jax.make_jaxpr(lambda m: m.hidden(tokens, mask))(model), 1)
    config, ends = model.config, np.full(3, T)
    square = 4.0 * config.num_attention_heads * config.head_dim * 3
    halves = square * T * (T + 1) / 2 * config.num_hidden_layers
    whole = square * T * T * config.num_hidden_layers
    assert found == forward_flops(config, np.zeros(3), ends) - halves + whole
