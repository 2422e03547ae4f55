"""Routed experts on a mesh: tokens go to the chips that hold their experts, and weights stay.

The chips along `expert` gather each other's tokens, each computes what its own experts make of
them, and the sums are scattered back. A token of GLM-4.5-Air has 8 of 128 experts, on 5 of 8 chips
or on 6 of 16: to send it to those alone would take two thirds or two fifths of it, but needs a
ragged all-to-all, which XLA for CPU lacks; a dense one with room for the worst case takes 8 times
as much. No token is dropped: each chip could compute them all.

Dimensions in names: X tokens of a chip, Y of all chips along `expert`, E experts, K experts of a
token, P (token, expert) pairs that are computed at a time.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array, Float, Int

from glm_jax.sharding import GENERATION, spec

# A chip whose share is no more pairs computes at once all that there may be, as in decoding.
ROOM = 1024


class SwiGLU(NamedTuple):
    """The matrices of one MLP, or of experts."""

    gate: Float[Array, "*E D F"]
    up: Float[Array, "*E D F"]
    down: Float[Array, "*E F D"]

    def __call__(self, x: Float[Array, "X D"]) -> Float[Array, "X D"]:
        return (jax.nn.silu(x @ self.gate) * (x @ self.up)) @ self.down

    def ragged(self, x: Float[Array, "P D"], sizes_E: Int[Array, "E"]) -> Float[Array, "P D"]:
        """Of rows that lie in the order of their experts, so many of each."""
        hidden = jax.nn.silu(jax.lax.ragged_dot(x, self.gate, sizes_E))
        hidden *= jax.lax.ragged_dot(x, self.up, sizes_E)
        return jax.lax.ragged_dot(hidden, self.down, sizes_E)


AXES = SwiGLU(("embed", "ffn"), ("embed", "ffn"), ("ffn", "embed"))


def on_mesh(
    x: Float[Array, "B T D"],
    route: Callable[..., tuple[Float[Array, "X K"], Int[Array, "X K"]]],
    router: tuple[Array, ...],
    experts: SwiGLU,
    shared: SwiGLU,
    mesh: AbstractMesh,
) -> Float[Array, "B T D"]:
    """What experts and shared experts make of the tokens of rows that are split over the mesh.

    `route(tokens [X, D], *router)`: weights and numbers of the experts of each token, [X, K].
    """
    B = x.shape[0]
    parts = partial(spec, mesh=mesh, rules=GENERATION)  # nothing is split by `fsdp`
    ways = math.prod(mesh.shape[axis] for axis in GENERATION["rows"])
    x = jnp.pad(x, ((0, -B % ways), (0, 0), (0, 0)))  # pads are tokens like others
    rows = PartitionSpec(GENERATION["rows"])
    whole = jax.tree.map(lambda w: parts(w.shape, (None,) * w.ndim), router)
    held = SwiGLU(*(parts(w.shape, ("experts", *a)) for w, a in zip(experts, AXES, strict=True)))
    split = SwiGLU(*(parts(w.shape, a) for w, a in zip(shared, AXES, strict=True)))
    lie = rows, whole, held, split

    @partial(jax.shard_map, mesh=mesh, in_specs=lie, out_specs=rows)
    def chip(*given):
        # gradients are summed over chips here, once, and not in the loop below
        x, router, experts, shared = jax.tree.map(partial(_varying, mesh), given, lie)
        tokens_XxD = x.reshape(-1, x.shape[-1])
        chosen = route(tokens_XxD, *router)
        gather = partial(jax.lax.all_gather, axis_name="expert", tiled=True)
        y = _held(*jax.tree.map(gather, (tokens_XxD, *chosen)), experts)
        y = jax.lax.psum_scatter(y, "expert", scatter_dimension=0, tiled=True)
        return jax.lax.psum(y + shared(tokens_XxD), ("group", "tensor")).reshape(x.shape)

    return chip(x, router, experts, shared)[:B]


def _held(
    tokens_YxD: Float[Array, "Y D"],
    weights_YxK: Float[Array, "Y K"],
    experts_YxK: Int[Array, "Y K"],
    experts: SwiGLU,
) -> Float[Array, "Y D"]:
    """The sum of what this chip's experts make of each token, weighted.

    All pairs may be this chip's: it computes an even share of them at a time, in the memory that
    takes, until it has no more.
    """
    (Y, K), E, chips = experts_YxK.shape, len(experts.gate), jax.lax.axis_size("expert")
    pairs = experts_YxK.reshape(-1) - jax.lax.axis_index("expert") * E
    pairs = jnp.where((pairs >= 0) & (pairs < E), pairs, E)  # those of other chips come last
    order = jnp.argsort(pairs)
    ends_E = jnp.cumsum(jnp.bincount(pairs, length=E))
    shares = chips if ROOM * chips < Y * K else 1
    P = Y * K // shares

    def share(y_YxD: Float[Array, "Y D"], first: Int[Array, ""]) -> Float[Array, "Y D"]:
        sizes_E = jnp.diff(jnp.clip(ends_E - first, 0, P), prepend=0)
        pairs_P = jax.lax.dynamic_slice_in_dim(order, first, P)
        # what follows the last pair of this chip comes from nowhere and goes nowhere; and what a
        # ragged product leaves there is not said, nor that it is finite
        own_P = jnp.arange(P) < ends_E[-1] - first
        at_P = jnp.where(own_P, pairs_P // K, Y)
        rows_PxD = tokens_YxD.at[at_P].get(mode="fill", fill_value=0)
        made_PxD = jnp.where(own_P[:, None], experts.ragged(rows_PxD, sizes_E), 0)
        weights_P = weights_YxK.reshape(-1)[pairs_P].astype(y_YxD.dtype)
        return y_YxD.at[at_P].add(made_PxD * weights_P[:, None], mode="drop")

    y_YxD = jnp.zeros_like(tokens_YxD)
    if shares == 1:
        return share(y_YxD, jnp.int32(0))

    @jax.checkpoint  # or the backward pass would keep the rows of each share, and the weights too
    def each(y_YxD, first):
        some = first < ends_E[-1]
        return jax.lax.cond(some, share, lambda y, _: y, y_YxD, first), None

    return jax.lax.scan(each, y_YxD, jnp.arange(shares) * P)[0]


def _varying(mesh: AbstractMesh, x: Array, lies: PartitionSpec) -> Array:
    """The same, as what may differ from chip to chip also where it does not."""
    split = jax.tree.leaves(tuple(lies))
    return jax.lax.pcast(x, tuple(a for a in mesh.axis_names if a not in split), to="varying")
