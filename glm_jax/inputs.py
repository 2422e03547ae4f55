"""What a model is given: tokens, and which of them are real."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from glm_jax.errors import InputError

Tokens = Int[Array | np.ndarray, "B T"]
Mask = Bool[Array | np.ndarray, "B T"] | Int[Array | np.ndarray, "B T"]


def checked(
    input_ids: Tokens, attention_mask: Mask | None
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """Both as arrays; without a mask all tokens are real. Raises InputError for other shapes."""
    input_ids = input_ids if hasattr(input_ids, "dtype") else np.asarray(input_ids)
    shape = input_ids.shape
    found = shape if attention_mask is None else jnp.shape(attention_mask)
    if len(shape) != 2 or not shape[1] or not jnp.issubdtype(input_ids.dtype, jnp.integer):
        raise InputError(f"input_ids must be integers [B, T], got {input_ids.dtype} {shape}")
    if found != shape:
        raise InputError(f"attention_mask must have the shape {shape} of input_ids, got {found}")
    tokens_BxT = jnp.asarray(input_ids, jnp.int32)
    if attention_mask is None:
        return tokens_BxT, jnp.ones(tokens_BxT.shape, bool)
    return tokens_BxT, jnp.asarray(attention_mask).astype(bool)
