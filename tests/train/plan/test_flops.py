"""Operations, counted with how often loops run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.roofline import forward_flops
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
