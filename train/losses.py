"""The losses, as pure arithmetic on arrays.

Token losses return a sum and a count, so that means can be taken over the global batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Total(NamedTuple):
    """A masked sum and the number of its terms."""

    sum: Float[Array, ""]
    count: Float[Array, ""]

    @property
    def mean(self) -> Float[Array, ""]:
        """0 when there is nothing to average."""
        return self.sum / jnp.maximum(self.count, 1.0)


def masked(values: Float[Array, "*B"], mask: Bool[Array, "*B"]) -> Total:
    """Sum and count of the values where the mask is True; what lies outside may be anything."""
    return Total(jnp.sum(jnp.where(mask, values, 0.0)), jnp.sum(mask, dtype=jnp.float32))


def next_token_loss(log_probs_BxT: Float[Array, "B T"], mask_BxT: Bool[Array, "B T"]) -> Total:
    """-log p(token | what stands before it), in nats."""
    return masked(-log_probs_BxT, mask_BxT)


def ranking_loss(
    chosen: Float[Array, "*B"],
    rejected: Float[Array, "*B"],
    l2: float = 0.0,
    *,
    margin: Float[Array, "*B"] | float = 0.0,
    centring: float = 0.0,
    label_smoothing: float = 0.0,
) -> Float[Array, "*B"]:
    """-log sigmoid(d) + l2 (r_w^2 + r_l^2), d = r_w - r_l - margin: ChatGLM-RLHF (arXiv 2404.00934,
    section 2), with the margin of Llama 2 (Touvron et al., 2023, eq. 2).

    The second term keeps the level of the scores, which the first leaves free, near zero; so does
    centring (r_w + r_l)^2 (Eisenstein et al., 2023, eq. 2; TRL's `center_rewards_coefficient`),
    which leaves their difference alone. With label smoothing e the first term is
    -(1 - e) log sigmoid(d) - e log sigmoid(-d): a label is wrong with chance e (Mitchell, 2023,
    eq. 3).
    """
    gap = chosen - rejected - margin
    loss = -jax.nn.log_sigmoid(gap)
    if label_smoothing:
        smoothed = -label_smoothing * jax.nn.log_sigmoid(-gap)
        loss = (1 - label_smoothing) * loss + smoothed
    loss += l2 * (jnp.square(chosen) + jnp.square(rejected))
    return loss + centring * jnp.square(chosen + rejected) if centring else loss


def dpo_loss(
    chosen_B: Float[Array, "B"],
    rejected_B: Float[Array, "B"],
    reference_chosen_B: Float[Array, "B"],
    reference_rejected_B: Float[Array, "B"],
    beta: float,
) -> Float[Array, "B"]:
    """-log sigmoid(beta (log(pi/pi_ref)(y_w) - log(pi/pi_ref)(y_l))): Rafailov et al., 2023, eq. 7.

    All arguments are log-probabilities of whole responses.
    """
    chosen_B = chosen_B - reference_chosen_B
    rejected_B = rejected_B - reference_rejected_B
    return -jax.nn.log_sigmoid(beta * (chosen_B - rejected_B))


def policy_loss(
    log_probs_BxR: Float[Array, "B R"],
    old_log_probs_BxR: Float[Array, "B R"],
    advantages_BxR: Float[Array, "B R"],
    clip: float,
    dual_clip: float | None = None,
) -> Float[Array, "B R"]:
    """max(-A ratio, -A clip(ratio, 1 - clip, 1 + clip)): PPO (Schulman et al., 2017, eq. 7).

    Where A < 0 it is at most -A dual_clip: a bad token that has become far likelier is left alone
    (Ye et al., 2020, eq. 4).
    """
    ratio_BxR = jnp.exp(log_probs_BxR - old_log_probs_BxR)
    clipped_BxR = jnp.clip(ratio_BxR, 1.0 - clip, 1.0 + clip)
    loss_BxR = jnp.maximum(-advantages_BxR * ratio_BxR, -advantages_BxR * clipped_BxR)
    if dual_clip is None:
        return loss_BxR
    most_BxR = jnp.where(advantages_BxR < 0, -advantages_BxR * dual_clip, jnp.inf)
    return jnp.minimum(loss_BxR, most_BxR)


def policy_clipped(
    ratio_BxR: Float[Array, "B R"], advantages_BxR: Float[Array, "B R"], clip: float
) -> Bool[Array, "B R"]:
    """Where the clip takes the gradient away: the ratio has passed it on the side that A favours.

    TRL and verl count these tokens in their clip fraction.
    """
    above_BxR = (advantages_BxR > 0) & (ratio_BxR > 1.0 + clip)
    return above_BxR | ((advantages_BxR < 0) & (ratio_BxR < 1.0 - clip))


def value_loss(
    values_BxR: Float[Array, "B R"],
    old_values_BxR: Float[Array, "B R"],
    returns_BxR: Float[Array, "B R"],
    clip: float | None,
) -> Float[Array, "B R"]:
    """0.5 max((V - R)^2, (V_old + clip(V - V_old, -clip, clip) - R)^2).

    0.5 (V - R)^2 without a clip.
    """
    error_BxR = jnp.square(values_BxR - returns_BxR)
    if clip is None:
        return 0.5 * error_BxR
    clipped_BxR = old_values_BxR + jnp.clip(values_BxR - old_values_BxR, -clip, clip)
    return 0.5 * jnp.maximum(error_BxR, jnp.square(clipped_BxR - returns_BxR))


def entropy(logits_BxRxV: Float[Array, "B R V"]) -> Float[Array, "B R"]:
    """log sum exp(z) - sum p z, in nats: that of the distribution from which a token is drawn."""
    mean_BxR = jnp.sum(jax.nn.softmax(logits_BxRxV, axis=-1) * logits_BxRxV, axis=-1)
    return jax.nn.logsumexp(logits_BxRxV, axis=-1) - mean_BxR
