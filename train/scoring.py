"""What a model says of given text: log-probabilities and values of its last tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model import GLM


def token_logits(
    model: GLM,
    tokens_BxT: Int[Array, "B T"],
    mask_BxT: Bool[Array, "B T"],
    last: int,
    temperature: float = 1.0,
) -> Float[Array, "B R V"]:
    """The logits from which each of the `last` tokens is drawn, in float32."""
    hidden_BxRxD = model.hidden(tokens_BxT, mask_BxT)[:, -last - 1 : -1]
    return model.outputs(hidden_BxRxD) / temperature


def log_probs_of(
    logits_BxRxV: Float[Array, "B R V"], tokens_BxR: Int[Array, "B R"]
) -> Float[Array, "B R"]:
    """log p of the tokens."""
    chosen_BxR = jnp.take_along_axis(logits_BxRxV, tokens_BxR[..., None], axis=-1)[..., 0]
    return chosen_BxR - jax.nn.logsumexp(logits_BxRxV, axis=-1)


def token_log_probs(
    model: GLM,
    tokens_BxT: Int[Array, "B T"],
    mask_BxT: Bool[Array, "B T"],
    last: int,
    temperature: float = 1.0,
) -> Float[Array, "B R"]:
    """log p of each of the `last` tokens given all before it, in float32."""
    logits_BxRxV = token_logits(model, tokens_BxT, mask_BxT, last, temperature)
    return log_probs_of(logits_BxRxV, tokens_BxT[:, -last:])


def token_values(
    critic: GLM, tokens_BxT: Int[Array, "B T"], mask_BxT: Bool[Array, "B T"], last: int
) -> Float[Array, "B R"]:
    """The critic's value of the state in which each of the `last` tokens was chosen."""
    hidden_BxRxD = critic.hidden(tokens_BxT, mask_BxT)[:, -last - 1 : -1]
    return critic.outputs(hidden_BxRxD)[..., 0]
