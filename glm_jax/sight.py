"""What the tokens of a text know of their places, and which others they see."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from glm_jax.attention import Attention
from glm_jax.config import GLMConfig
from glm_jax.layers import rotary

# Rows of several texts are long: their queries see no further than their own block of so many.
BLOCKS, BLOCK = 4, 128

Angles = tuple[Float[Array, "B T R"], Float[Array, "B T R"]]


@struct.dataclass
class Sight:
    """What attention has to know of the tokens, the same in every layer."""

    # arrays, or what JAX puts in their places while it differentiates
    angles: Any  # Angles
    mask: Any  # Bool[Array, "B T S"]; for a kernel which tokens belong together, "B S"
    attention: Attention = struct.field(pytree_node=False, default="plain")
    blocks: int = struct.field(pytree_node=False, default=1)  # of queries, each with fewer keys


class Packed(NamedTuple):
    """Where the tokens of several texts in one row belong. Texts do not see each other.

    A text may go on in several ways: part 0 is seen by all of them, and none sees another.

        tokens    p p a a b  q q q c d
        text      1 1 1 1 1  2 2 2 2 2      0: pads
        part      0 0 1 1 2  0 0 0 1 2
        position  0 1 2 3 2  0 1 2 3 3

    Kernels, which know no parts, need parts that are all 0.
    """

    text: Int[Array, "B T"]
    part: Int[Array, "B T"]
    position: Int[Array, "B T"]


def sight(
    positions_BxT: Int[Array, "B T"], mask_BxTxS: Bool[Array, "B T S"], config: GLMConfig
) -> Sight:
    """That of tokens which see what the mask says, at these positions."""
    return Sight(rotary(positions_BxT, config.rotary_dim, config.rope_theta), mask_BxTxS)


def sight_of_texts(
    mask_BxT: Bool[Array, "B T"], config: GLMConfig, attention: Attention = "plain"
) -> Sight:
    """That of whole texts: each token sees the real ones up to its own place."""
    angles = rotary(positions(mask_BxT), config.rotary_dim, config.rope_theta)
    return Sight(angles, causal(mask_BxT) if attention == "plain" else mask_BxT, attention)


def sight_of_packed(packed: Packed, config: GLMConfig, attention: Attention = "plain") -> Sight:
    """That of several texts in a row: a token sees what its own continues."""
    angles = rotary(packed.position, config.rotary_dim, config.rope_theta)
    if attention != "plain":
        return Sight(angles, packed.text, attention)
    text, part = packed.text, packed.part
    same = text[:, :, None] == text[:, None, :]
    before = (part[:, None, :] == 0) | (part[:, :, None] == part[:, None, :])
    T = text.shape[1]
    seen = same & before & jnp.tril(jnp.ones((T, T), bool))[None]
    return Sight(angles, seen, blocks=max(1, min(BLOCKS, T // BLOCK)))


def positions(mask_BxT: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """0, 1, 2, ... over the real tokens of each row; pads get any value within range."""
    return jnp.maximum(jnp.cumsum(mask_BxT, axis=1, dtype=jnp.int32) - 1, 0)


def causal(mask_BxT: Bool[Array, "B T"], columns: int | None = None) -> Bool[Array, "B T S"]:
    """What each token of a row may see of S columns: the real tokens up to its own place.

    `columns`: S, when it is more than T; what comes after the tokens is not seen.
    """
    T = mask_BxT.shape[1]
    mask_BxTxT = jnp.tril(jnp.ones((T, T), bool))[None] & mask_BxT[:, None]
    return jnp.pad(mask_BxTxT, ((0, 0), (0, 0), (0, (columns or T) - T)))
