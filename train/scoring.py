"""What a model says of given text: log-probabilities and values of its last tokens.

Dims: R the last tokens, K tokens of a chunk, V vocabulary.
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.attention import Attention
from glm_jax.heads import outputs
from glm_jax.model import GLM
from glm_jax.sharding import GENERATION, laid_out
from glm_jax.train.losses import entropy

Models = TypeVar("Models")


class Spoken(NamedTuple):
    """Of each token of an answer: its log p, and the entropy of what it was drawn from."""

    log_probs: Float[Array, "B R"]
    entropy: Float[Array, "B R"]


def states_before(
    model: GLM, tokens_BxT: Int[Array, "B T"], mask_BxT: Bool[Array, "B T"], last: int
) -> Float[Array, "B R D"]:
    """The hidden states in which each of the `last` tokens was chosen."""
    return model.hidden(tokens_BxT, mask_BxT, last + 1)[:, :-1]


def spoken(
    model: GLM,
    hidden_BxRxD: Float[Array, "B R D"],
    tokens_BxR: Int[Array, "B R"],
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Spoken:
    """log p of the tokens chosen in these states, in float32.

    With `chunk`, so many columns at a time have logits in memory, in the backward pass too, which
    computes them again.
    """

    # once for all chunks: in the layout of training each of them would gather it
    head = laid_out(model.head, GENERATION)

    def some(hidden_BxKxD, tokens_BxK, head) -> Spoken:
        logits_BxKxV = outputs(hidden_BxKxD, head) / temperature
        return Spoken(log_probs_of(logits_BxKxV, tokens_BxK), entropy(logits_BxKxV))

    B, R = tokens_BxR.shape
    if chunk is None or chunk >= R:
        return some(hidden_BxRxD, tokens_BxR, head)
    pads = -R % chunk

    def chunks(x):
        x = jnp.pad(x, ((0, 0), (0, pads), *[(0, 0)] * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(B, -1, chunk, *x.shape[2:]), 1, 0)

    again = jax.checkpoint(lambda inputs: some(*inputs, head))
    said = jax.lax.map(again, (chunks(hidden_BxRxD), chunks(tokens_BxR)))
    return jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1).reshape(B, -1)[:, :R], said)


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
    chunk: int | None = None,
) -> Float[Array, "B R"]:
    """log p of each of the `last` tokens given all before it, in float32."""
    hidden_BxRxD = states_before(model, tokens_BxT, mask_BxT, last)
    return spoken(model, hidden_BxRxD, tokens_BxT[:, -last:], temperature, chunk).log_probs


def token_values(
    critic: GLM, tokens_BxT: Int[Array, "B T"], mask_BxT: Bool[Array, "B T"], last: int
) -> Float[Array, "B R"]:
    """The critic's value of the state in which each of the `last` tokens was chosen."""
    return critic.outputs(states_before(critic, tokens_BxT, mask_BxT, last))[..., 0]


def in_dtype(tree: Models, dtype: str, attention: Attention = "plain") -> Models:
    """The same with the weights of all models in another dtype, in which they then compute, and
    with this attention."""

    def cast(leaf: Any) -> Any:
        if not isinstance(leaf, GLM):
            return leaf
        return jax.tree.map(lambda w: w.astype(dtype), leaf).attending(attention)

    return jax.tree.map(cast, tree, is_leaf=lambda leaf: isinstance(leaf, GLM))
