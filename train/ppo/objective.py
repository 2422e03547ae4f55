"""The PPO objective on rows of a minibatch: its policy, value and supervised losses.

Dims: M rows of a minibatch or of a micro-batch of it, R response tokens, T with the prompt, D of a
hidden state.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model import GLM
from glm_jax.sharding import rows_split
from glm_jax.train import sft
from glm_jax.train.losses import masked, policy_clipped, policy_loss, value_loss
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.scoring import in_dtype, spoken, token_values
from glm_jax.train.sft import SFTBatch
from glm_jax.train.update import Metrics


class Trainable(NamedTuple):
    actor: GLM
    critic: GLM | None  # a head alone when it shares the actor's trunk; None without a critic


class Rollout(NamedTuple):
    """Responses with all that the updates need to know of them."""

    tokens: Int[Array, "B T"]
    mask: Bool[Array, "B T"]
    learned: Bool[Array, "B R"]  # the response tokens that count in the losses
    log_probs: Float[Array, "B R"]
    values: Float[Array, "B R"] | None
    advantages: Float[Array, "B R"]
    returns: Float[Array, "B R"] | None

    @property
    def lengths(self) -> Int[Array, "B"]:
        """Response tokens of each row."""
        R = self.learned.shape[1]
        return jnp.sum(self.mask[:, -R:], axis=1, dtype=jnp.int32)


def objective(
    models: Trainable,
    m: Rollout,
    supervised: SFTBatch | None,
    tokens: Float[Array, ""],
    supervised_tokens: Float[Array, ""] | None,
    config: PPOHyperparameters,
) -> tuple[Float[Array, ""], tuple[Metrics, Float[Array, ""]]]:
    """(these rows' part of the minibatch's mean loss, (sums over tokens, largest |log ratio|))."""
    m, supervised = rows_split((m, supervised))
    models = in_dtype(models, config.compute_dtype, config.attention)
    actor, critic = (model and model.rematerialised(config.remat) for model in models)
    total, (sums, largest, hidden_MxRxD) = actor_loss(
        actor, m, supervised, tokens, supervised_tokens, config
    )
    if critic is not None:
        if config.share_trunk:
            values_MxR = critic.outputs(hidden_MxRxD)[..., 0]
        else:
            values_MxR = token_values(critic, m.tokens, m.mask, m.learned.shape[1])
        value, value_sums = critic_loss(values_MxR, m, tokens, config)
        total, sums = total + value, sums | value_sums
    return total, (sums, largest)


def actor_loss(
    actor: GLM,
    m: Rollout,
    supervised: SFTBatch | None,
    tokens: Float[Array, ""],
    supervised_tokens: Float[Array, ""] | None,
    config: PPOHyperparameters,
) -> tuple[Float[Array, ""], tuple[Metrics, Float[Array, ""], Float[Array, "M R D"]]]:
    """(the actor's part of the loss, (sums, largest |log ratio|, the states of the answers))."""
    R = m.learned.shape[1]
    texts = [(m.tokens, m.mask, R + 1)]
    if supervised is not None:
        texts.append((supervised.tokens, supervised.mask, None))
    hidden_MxRxD, *others = (states[:, :-1] for states in actor.hidden_of(texts))
    log_probs_MxR, entropy_MxR = spoken(
        actor, hidden_MxRxD, m.tokens[:, -R:], config.sampling.temperature, config.log_prob_chunk
    )
    policy_MxR = policy_loss(
        log_probs_MxR, m.log_probs, m.advantages, config.clip, config.dual_clip
    )
    log_ratio_MxR = jnp.where(m.learned, log_probs_MxR - m.log_probs, 0.0)
    ratio_MxR = jnp.exp(log_ratio_MxR)
    clipped_MxR = policy_clipped(ratio_MxR, m.advantages, config.clip)
    by_token = {
        "loss/policy_avg": policy_MxR,
        "policy/approxkl_avg": 0.5 * jnp.square(log_ratio_MxR),
        "policy/clipfrac_avg": clipped_MxR.astype(jnp.float32),
        "val/ratio": ratio_MxR,
        "val/abs_log_ratio": jnp.abs(log_ratio_MxR),
    }
    if config.entropy_coefficient:
        by_token["policy/entropy_avg"] = entropy_MxR
    sums = {name: masked(x_MxR, m.learned).sum for name, x_MxR in by_token.items()}
    total = sums["loss/policy_avg"] / tokens
    if config.entropy_coefficient:
        total -= config.entropy_coefficient * (sums["policy/entropy_avg"] / tokens)
    if supervised is not None:
        sums["loss/supervised_avg"] = sft.loss_in(
            actor, others[0], supervised, config.log_prob_chunk
        ).sum
        mean = sums["loss/supervised_avg"] / supervised_tokens
        total += config.supervised_coefficient * mean
    return total, (sums, jnp.max(jnp.abs(log_ratio_MxR)), hidden_MxRxD)


def critic_loss(
    values_MxR: Float[Array, "M R"], m: Rollout, tokens: Float[Array, ""],
    config: PPOHyperparameters,
) -> tuple[Float[Array, ""], Metrics]:  # fmt: skip
    """(the critic's part of the loss, sums)."""
    value_MxR = value_loss(values_MxR, m.values, m.returns, config.value_clip)
    unclipped_MxR = value_loss(values_MxR, m.values, m.returns, None)
    clipped_MxR = (value_MxR > unclipped_MxR).astype(jnp.float32)
    by_token = {"loss/value_avg": value_MxR, "val/clipfrac_avg": clipped_MxR}
    sums = {name: masked(x_MxR, m.learned).sum for name, x_MxR in by_token.items()}
    return config.value_coefficient * (sums["loss/value_avg"] / tokens), sums


def token_counts(
    minibatch: Rollout, supervised: SFTBatch | None
) -> tuple[Float[Array, ""], Float[Array, ""] | None]:
    """Those that count in the losses: of the answers, and of the supervised texts."""
    tokens = jnp.maximum(jnp.sum(minibatch.learned, dtype=jnp.float32), 1.0)
    if supervised is None:
        return tokens, None
    told = jnp.sum(supervised.loss_mask[:, 1:], dtype=jnp.float32)
    return tokens, jnp.maximum(told, 1.0)


def means(
    sums: Metrics, tokens: Float[Array, ""], supervised_tokens: Float[Array, ""] | None
) -> Metrics:
    counts = {"loss/supervised_avg": supervised_tokens}
    return {name: total / counts.get(name, tokens) for name, total in sums.items()}
