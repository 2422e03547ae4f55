"""One PPO update: the gradient of all its losses on a minibatch, and the optimisers' step.

Dims: M rows of the minibatch, R response tokens, U updates an iteration.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from glm_jax.model import GLM
from glm_jax.train import sft
from glm_jax.train.losses import entropy, masked, policy_clipped, policy_loss, value_loss
from glm_jax.train.optimizer import adamw
from glm_jax.train.ppo_hyperparameters import PPOHyperparameters
from glm_jax.train.scoring import log_probs_of, token_logits, token_values
from glm_jax.train.sft import SFTBatch
from glm_jax.train.update import Metrics


class Trainable(NamedTuple):
    actor: GLM
    critic: GLM


class Rollout(NamedTuple):
    """Responses with all that the updates need to know of them."""

    tokens: Int[Array, "B T"]
    mask: Bool[Array, "B T"]
    learned: Bool[Array, "B R"]  # the response tokens that count in the losses
    log_probs: Float[Array, "B R"]
    values: Float[Array, "B R"]
    advantages: Float[Array, "B R"]
    returns: Float[Array, "B R"]


class Learner(NamedTuple):
    """What an update changes."""

    models: Trainable
    optimiser: Trainable
    skipped: Int[Array, ""]  # updates in a row that changed nothing else


def update(
    learner: Learner, minibatch: Rollout, supervised: SFTBatch | None, config: PPOHyperparameters
) -> tuple[Learner, Metrics]:
    """One backward pass for the policy, value and supervised losses, and the step along it.

    If the loss or a gradient is not finite, weights, moments and schedules stay as they were.
    `update/applied` is 1 or 0.
    """
    models, optimiser, skipped = learner

    def total(models: Trainable) -> tuple[Float[Array, ""], Metrics]:
        return _loss(models, minibatch, supervised, config)

    (loss, metrics), gradients = jax.value_and_grad(total, has_aux=True)(models)
    stepped = [
        o.update(g, s, m)
        for o, g, s, m in zip(optimisers(config), gradients, optimiser, models, strict=True)
    ]
    updates, moved = (Trainable(*part) for part in zip(*stepped, strict=True))
    norms = [optax.tree.norm(part) for part in gradients]
    finite = jnp.all(jnp.isfinite(jnp.stack([loss, *norms])))
    metrics["policy/grad_norm"] = norms[0]
    metrics["update/applied"] = finite.astype(jnp.float32)
    models, optimiser = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (optax.apply_updates(models, updates), moved),
        (models, optimiser),
    )
    return Learner(models, optimiser, jnp.where(finite, 0, skipped + 1)), metrics


def _loss(
    models: Trainable, m: Rollout, supervised: SFTBatch | None, config: PPOHyperparameters
) -> tuple[Float[Array, ""], Metrics]:
    R = m.learned.shape[1]
    logits_MxRxV = token_logits(models.actor, m.tokens, m.mask, R, config.sampling.temperature)
    log_probs_MxR = log_probs_of(logits_MxRxV, m.tokens[:, -R:])
    values_MxR = token_values(models.critic, m.tokens, m.mask, R)
    policy_MxR = policy_loss(
        log_probs_MxR, m.log_probs, m.advantages, config.clip, config.dual_clip
    )
    value_MxR = value_loss(values_MxR, m.values, m.returns, config.value_clip)
    policy, value = masked(policy_MxR, m.learned).mean, masked(value_MxR, m.learned).mean
    total = policy + config.value_coefficient * value
    log_ratio_MxR = jnp.where(m.learned, log_probs_MxR - m.log_probs, 0.0)
    ratio_MxR = jnp.exp(log_ratio_MxR)
    clipped_MxR = policy_clipped(ratio_MxR, m.advantages, config.clip)
    value_clipped_MxR = value_MxR > value_loss(values_MxR, m.values, m.returns, None)
    metrics = {
        "loss/policy_avg": policy,
        "loss/value_avg": value,
        "policy/approxkl_avg": masked(0.5 * jnp.square(log_ratio_MxR), m.learned).mean,
        "policy/clipfrac_avg": masked(clipped_MxR.astype(jnp.float32), m.learned).mean,
        "val/clipfrac_avg": masked(value_clipped_MxR.astype(jnp.float32), m.learned).mean,
        "val/ratio": masked(ratio_MxR, m.learned).mean,
        "val/max_log_ratio": jnp.max(jnp.abs(log_ratio_MxR)),
    }
    if config.entropy_coefficient:
        metrics["policy/entropy_avg"] = masked(entropy(logits_MxRxV), m.learned).mean
        total -= config.entropy_coefficient * metrics["policy/entropy_avg"]
    if supervised is not None:
        metrics["loss/supervised_avg"] = sft.loss(models.actor, supervised).mean
        total += config.supervised_coefficient * metrics["loss/supervised_avg"]
    return total, metrics


def optimisers(config: PPOHyperparameters) -> Trainable:
    """Those of actor and critic; their schedules count the updates of a whole run."""
    updates = config.iterations * config.updates
    return Trainable(adamw(config.actor, updates), adamw(config.critic, updates))


def minibatches(key: Key[Array, ""], rows: int, config: PPOHyperparameters) -> Int[Array, "U M"]:
    """Each epoch's rows in a fresh order, cut into minibatches."""
    keys = jax.random.split(key, config.epochs)
    rows_ExB = jax.vmap(lambda key: jax.random.permutation(key, rows))(keys)
    return rows_ExB.reshape(config.updates, -1)
