"""Models small enough for every test to make its own."""

from collections.abc import Callable

import pytest
from flax import nnx

from glm_jax.config import GLMConfig
from glm_jax.model import GLM


@pytest.fixture(scope="session")
def tiny() -> Callable[..., GLM]:
    """tiny(head, seed, **shape): two layers, width 16; every test may train what it gets."""

    def make(head: str = "lm", seed: int = 0, **shape) -> GLM:
        small = {
            "vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        }  # fmt: skip
        return GLM(GLMConfig(**(small | shape)), nnx.Rngs(seed), head)

    return make
