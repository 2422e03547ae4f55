"""Tiny models in which every weight matters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from glm_jax.config import GLMConfig
from glm_jax.model import GLM

TINY = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "eos_token_id": (0, 7),
    "pad_token_id": 3,
}


@pytest.fixture(scope="session")
def tiny():
    """tiny(head, seed, **changes of the config): large weights, no norm at 1, no bias at 0."""

    def make(head: str = "lm", seed: int = 0, **changes) -> GLM:
        config, rng = GLMConfig(**(TINY | changes)), np.random.default_rng(seed)

        def draw(path, abstract: jax.ShapeDtypeStruct) -> jax.Array:
            mean = 1.0 if "norm" in jax.tree_util.keystr(path) else 0.0
            return jnp.asarray(rng.normal(mean, 0.2, abstract.shape), abstract.dtype)

        return jax.tree.map_with_path(draw, nnx.eval_shape(lambda: GLM(config, nnx.Rngs(0), head)))

    return make


@pytest.fixture(scope="session")
def outputs():
    """outputs(model, tokens, mask): the whole forward pass, compiled."""
    return jax.jit(lambda model, tokens, mask: model(jnp.asarray(tokens), jnp.asarray(mask)))
