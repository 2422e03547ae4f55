"""What turns a model's hidden states into logits, values or scores."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from glm_jax.config import GLMConfig
from glm_jax.layers import project
from glm_jax.weights import Disk, Place, fan_in, weight

Head = Literal["lm", "reward", "value"]


def head_weight(config: GLMConfig, rngs: nnx.Rngs, head: Head) -> nnx.Param:
    """A fresh head: [D, V] of `lm`, [D, 1] of the others."""
    D, V = config.hidden_size, config.vocab_size
    if head == "lm":
        disk = Disk(1, Place("lm_head.weight"), Place("transformer.output_layer.weight"))
        return weight(rngs, (D, V), ("embed", "vocab"), fan_in(D), disk)
    # std 1/sqrt(D + 1), as in Stiennon et al., 2020: scores of a fresh head have unit size
    disk = Disk(1, Place("score.weight"), Place("classifier_head.weight"))
    return weight(rngs, (D, 1), ("embed", "score"), fan_in(D + 1), disk)


def outputs(x: Float[Array, "*B D"], head: nnx.Param) -> Float[Array, "*B O"]:
    """What a head says of hidden states, in float32: O = V logits, or one score."""
    with jax.named_scope("head"):
        return project(x, head).astype(jnp.float32)
