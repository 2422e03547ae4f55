"""From scores to advantages: KL penalties, token rewards, GAE. Pure arithmetic."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def kl_k1(
    log_probs_BxR: Float[Array, "B R"], reference_BxR: Float[Array, "B R"]
) -> Float[Array, "B R"]:
    """The k1 estimator of KL(pi || pi_ref), in nats a token: log pi - log pi_ref."""
    return log_probs_BxR - reference_BxR


def token_rewards(
    scores_B: Float[Array, "B"],
    kl_BxR: Float[Array, "B R"],
    mask_BxR: Bool[Array, "B R"],
    kl_coefficient: Float[Array, ""],
) -> Float[Array, "B R"]:
    """-beta KL at every response token, and the score once, at the last one.

    Their sum over a row is score - beta * (its KL): ChatGLM-RLHF, section 3.
    """
    last_BxR = mask_BxR & ~jnp.pad(mask_BxR[:, 1:], ((0, 0), (0, 1)))
    penalty_BxR = jnp.where(mask_BxR, -kl_coefficient * kl_BxR, 0.0)
    return penalty_BxR + jnp.where(last_BxR, scores_B[:, None], 0.0)


def gae(
    rewards_BxR: Float[Array, "B R"],
    values_BxR: Float[Array, "B R"],
    mask_BxR: Bool[Array, "B R"],
    gamma: float,
    lam: float,
) -> tuple[Float[Array, "B R"], Float[Array, "B R"]]:
    """Generalised advantage estimation (Schulman et al., 2016, eq. 16); returns = A + V.

    Rewards and values outside the mask count as zero, so that pads change nothing. No gradient
    flows through either result.
    """
    rewards_BxR = jnp.where(mask_BxR, rewards_BxR, 0.0)
    values_BxR = jnp.where(mask_BxR, jax.lax.stop_gradient(values_BxR), 0.0)
    next_BxR = jnp.pad(values_BxR[:, 1:], ((0, 0), (0, 1)))
    deltas_BxR = rewards_BxR + gamma * next_BxR - values_BxR

    def backwards(later_B, delta_B):
        advantage_B = delta_B + gamma * lam * later_B
        return advantage_B, advantage_B

    _, advantages_RxB = jax.lax.scan(
        backwards, jnp.zeros_like(deltas_BxR[:, 0]), deltas_BxR.T, reverse=True
    )
    advantages_BxR = jnp.where(mask_BxR, advantages_RxB.T, 0.0)
    return advantages_BxR, advantages_BxR + values_BxR
