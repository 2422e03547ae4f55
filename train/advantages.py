"""From scores to advantages: KL penalties, token rewards, GAE, groups, whitening.

Pure arithmetic. Dims: B answers, R their tokens; I prompts, K answers of each.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from glm_jax.train.losses import masked

KLEstimator = Literal["k1", "k2", "k3"]


def token_kl(
    log_probs_BxR: Float[Array, "B R"], reference_BxR: Float[Array, "B R"], estimator: KLEstimator
) -> Float[Array, "B R"]:
    """An estimate of KL(pi || pi_ref) in nats a token, from tokens that pi drew.

    With x = log pi - log pi_ref, k1 is x, k2 is x^2 / 2, k3 is exp(-x) - 1 + x (Schulman,
    "Approximating KL Divergence", 2020). k1 and k3 have the KL as their mean; k2 and k3 are >= 0.
    """
    log_ratio_BxR = log_probs_BxR - reference_BxR
    if estimator == "k1":
        return log_ratio_BxR
    if estimator == "k2":
        return 0.5 * jnp.square(log_ratio_BxR)
    return jnp.expm1(-log_ratio_BxR) + log_ratio_BxR


def adapted(
    kl_coefficient: Float[Array, ""],
    kl: Float[Array, ""],
    target: float,
    horizon: float,
    responses: int,
) -> Float[Array, ""]:
    """beta (1 + clip(KL / target - 1, -0.2, 0.2) n / horizon): Ziegler et al., 2019, section 2.2.

    KL and target are in nats a response; n responses were seen.
    """
    error = jnp.clip(kl / target - 1.0, -0.2, 0.2)
    return kl_coefficient * (1.0 + error * (responses / horizon))


def whiten(
    values_BxR: Float[Array, "B R"], mask_BxR: Bool[Array, "B R"], *, center: bool
) -> Float[Array, "B R"]:
    """Values of variance 1 over all tokens of the mask, 0 outside it.

    `center` takes their mean away too. The variance is the unbiased one, as in TRL and verl.
    """
    mean, count = masked(values_BxR, mask_BxR).mean, masked(values_BxR, mask_BxR).count
    squares = masked(jnp.square(values_BxR - mean), mask_BxR).sum
    scaled_BxR = (values_BxR - mean) * jax.lax.rsqrt(squares / jnp.maximum(count - 1.0, 1.0) + 1e-8)
    return jnp.where(mask_BxR, scaled_BxR if center else scaled_BxR + mean, 0.0)


def token_rewards(
    scores_B: Float[Array, "B"],
    kl_BxR: Float[Array, "B R"],
    mask_BxR: Bool[Array, "B R"],
    kl_coefficient: Float[Array, ""],
) -> Float[Array, "B R"]:
    """-beta KL at every response token, and the score once, at the last one.

    Their sum over a row is score - beta * (its KL): ChatGLM-RLHF, section 3.
    """
    penalty_BxR = jnp.where(mask_BxR, -kl_coefficient * kl_BxR, 0.0)
    return penalty_BxR + jnp.where(last_tokens(mask_BxR), scores_B[:, None], 0.0)


def last_tokens(mask_BxR: Bool[Array, "B R"]) -> Bool[Array, "B R"]:
    """True at the last token of each answer."""
    return mask_BxR & ~jnp.pad(mask_BxR[:, 1:], ((0, 0), (0, 1)))


def gae(
    rewards_BxR: Float[Array, "B R"],
    values_BxR: Float[Array, "B R"],
    mask_BxR: Bool[Array, "B R"],
    gamma: float,
    lam: float,
    after_B: Float[Array, "B"] | None = None,
) -> tuple[Float[Array, "B R"], Float[Array, "B R"]]:
    """Generalised advantage estimation (Schulman et al., 2016, eq. 16); returns = A + V.

    Rewards and values outside the mask count as zero, so that pads change nothing. `after` is the
    value of what would follow the last token: 0, unless the answer was cut off there. No gradient
    flows through either result.
    """
    rewards_BxR = jnp.where(mask_BxR, rewards_BxR, 0.0)
    values_BxR = jnp.where(mask_BxR, jax.lax.stop_gradient(values_BxR), 0.0)
    next_BxR = jnp.pad(values_BxR[:, 1:], ((0, 0), (0, 1)))
    if after_B is not None:
        after_B = jax.lax.stop_gradient(after_B)
        next_BxR = jnp.where(last_tokens(mask_BxR), after_B[:, None], next_BxR)
    deltas_BxR = rewards_BxR + gamma * next_BxR - values_BxR

    def backwards(later_B, delta_B):
        advantage_B = delta_B + gamma * lam * later_B
        return advantage_B, advantage_B

    _, advantages_RxB = jax.lax.scan(
        backwards, jnp.zeros_like(deltas_BxR[:, 0]), deltas_BxR.T, reverse=True
    )
    advantages_BxR = jnp.where(mask_BxR, advantages_RxB.T, 0.0)
    return advantages_BxR, advantages_BxR + values_BxR


def leave_one_out(
    rewards_IxK: Float[Array, "I K"], counted_IxK: Bool[Array, "I K"]
) -> Float[Array, "I K"]:
    """reward - mean of the other answers' to the same prompt: RLOO (Ahmadian et al., 2024, eq. 8).

    Answers that do not count are no one's baseline; without another that does it is 0.
    """
    one_IxK = counted_IxK.astype(jnp.float32)
    own_IxK = jnp.where(counted_IxK, rewards_IxK, 0.0)
    others_IxK = jnp.sum(one_IxK, axis=1, keepdims=True) - one_IxK
    total_IxK = jnp.sum(own_IxK, axis=1, keepdims=True) - own_IxK
    return rewards_IxK - total_IxK / jnp.maximum(others_IxK, 1.0)


def group_normalised(
    rewards_IxK: Float[Array, "I K"], counted_IxK: Bool[Array, "I K"]
) -> Float[Array, "I K"]:
    """(reward - mean) / (std + 1e-6) over the answers to a prompt: GRPO (Shao et al., 2024,
    section 4.1.2), with the unbiased variance, as in verl."""
    count_Ix1 = jnp.sum(counted_IxK, axis=1, keepdims=True).astype(jnp.float32)
    own_IxK = jnp.where(counted_IxK, rewards_IxK, 0.0)
    mean_Ix1 = jnp.sum(own_IxK, axis=1, keepdims=True) / jnp.maximum(count_Ix1, 1.0)
    off_IxK = jnp.where(counted_IxK, rewards_IxK - mean_Ix1, 0.0)
    variance_Ix1 = jnp.sum(jnp.square(off_IxK), axis=1, keepdims=True)
    std_Ix1 = jnp.sqrt(variance_Ix1 / jnp.maximum(count_Ix1 - 1.0, 1.0))
    return off_IxK / (std_Ix1 + 1e-6)
