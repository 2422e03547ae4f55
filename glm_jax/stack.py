"""Layers of one kind as one, and how a text goes through them."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from glm_jax.block import Block
from glm_jax.config import GLMConfig
from glm_jax.layers import Cache
from glm_jax.sharding import constrained
from glm_jax.sight import Sight

# Stacks of at most so many layers are unrolled: in a loop, XLA for CPU copies the weights of each
# layer, and every activation that the backward pass needs.
UNROLLED = 12

Remat = Literal["none", "full", "products"]
# What the backward pass keeps of a layer: with `full` its input, with `products` also the results
# of its matrix products but for attention's; the rest is computed again.
POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def stack(config: GLMConfig, rngs: nnx.Rngs, depth: int, experts: bool = False) -> Block:
    """Fresh blocks of one kind as one, each weight with a leading axis of layers."""

    @nnx.split_rngs(splits=depth)
    @nnx.vmap
    def create(rngs: nnx.Rngs) -> Block:
        return Block(config, rngs, experts)

    return create(rngs)


def unstacked(blocks: nnx.Module) -> nnx.Module:
    """The same layers with weights of their own, turned as a loop over tokens reads them fastest;
    as they were if they are too many to be unrolled."""
    if depth(blocks) > UNROLLED:
        return blocks
    return nnx.List([block.turned() for block in layers(blocks)])


def through(
    stacks: Sequence[nnx.Module],
    x: Float[Array, "B T D"],
    sight: Sight,
    cache: Cache | None = None,
    *,
    remat: Remat = "none",
    keep: bool = False,
    last: int | None = None,
) -> tuple[Float[Array, "B O D"], Cache | None, Float[Array, "L B T D"] | None]:
    """(what comes out of the last layer, the cache, with `keep` what comes out of each).

    `last`: no more than so many tokens at the end are needed; the others may be left out.
    """

    def layer(carry, inputs, *, last=None):
        block, index = inputs
        x, cache = block(carry[0], sight, carry[1], index, last)
        x = constrained(x, "rows", None, None)
        return (x, cache), x if keep else None

    def one(last=None):
        of = partial(layer, last=last)
        return of if remat == "none" else jax.checkpoint(of, policy=POLICIES[remat])

    # the cache rides in the carry: as scan inputs and outputs it would be copied every token
    carry, states, first = (x, cache), [], 0
    final = sum(map(depth, stacks)) - 1
    for blocks in stacks:
        if depth(blocks) > UNROLLED:
            inputs = blocks, jnp.arange(first, first + depth(blocks))
            carry, kept = jax.lax.scan(one(), carry, inputs)
            states.append(kept)
        else:
            for index, block in enumerate(layers(blocks), start=first):
                carry, kept = one(last if index == final else None)(carry, (block, index))
                states.append(kept[None] if keep else None)
        first += depth(blocks)
    return *carry, jnp.concatenate(states) if keep else None


def depth(blocks: nnx.Module) -> int:
    """How many layers a stack has."""
    return len(blocks) if isinstance(blocks, nnx.List) else blocks.attention_norm.shape[0]


def layers(blocks: nnx.Module) -> list[Block]:
    """The blocks of a stack, one by one. The gradient of a split is one concatenation."""
    if isinstance(blocks, nnx.List):
        return list(blocks)
    split = jax.tree.map(lambda w: [x[0] for x in jax.lax.split(w, [1] * depth(blocks))], blocks)
    return jax.tree.transpose(jax.tree.structure(blocks), None, split)
