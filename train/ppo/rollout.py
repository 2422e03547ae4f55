"""The first half of an iteration: answers, their rewards, and advantages.

Dims: B prompts, K answers of each, N = B x K rows; R response tokens.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from glm_jax.decoding import REPETITION, Completions, row_keys
from glm_jax.model import GLM
from glm_jax.refill import rollout_in_slots
from glm_jax.sampling import Sampling
from glm_jax.train.advantages import (
    gae,
    group_normalised,
    leave_one_out,
    token_kl,
    token_rewards,
    whiten,
)  # fmt: skip
from glm_jax.train.losses import masked
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.objective import Rollout, Trainable
from glm_jax.train.ppo.scores import (
    Frozen,
    PPOBatch,
    Scores,
    answer_widths,
    rewards,
    scores,
    texts,
    with_answers,
)  # fmt: skip
from glm_jax.train.scoring import in_dtype
from glm_jax.train.update import Metrics


class Scored(NamedTuple):
    """Responses, the reward's scores of them, and their KL to the reference in nats."""

    tokens: Int[Array, "N R"]
    log_probs: Float[Array, "N R"]
    mask: Bool[Array, "N R"]
    finish: Int[Array, "N"]
    scores: Float[Array, "N"]
    kl: Float[Array, "N"]


def roll_out(
    models: Trainable,
    frozen: Frozen,
    batch: PPOBatch,
    key: Key[Array, ""],
    kl_coefficient: Float[Array, ""],
    config: PPOHyperparameters,
) -> tuple[Rollout, Metrics, Scored]:
    """Generates, scores, and turns scores into advantages."""
    K = config.samples_per_prompt
    # cast once: decoding reads every weight for every token
    models, frozen = in_dtype((models, frozen), config.compute_dtype, config.attention)
    answered = with_answers(batch, K)
    numbers_N = answered.rows * K + jnp.tile(jnp.arange(K), batch.rows.shape[0])
    # a prompt that stands twice in a batch, at the end of an epoch, gets other answers there
    again_BxB = jnp.tril(batch.rows[:, None] == batch.rows[None], k=-1)
    times_N = jnp.repeat(jnp.sum(again_BxB, axis=1), K)
    with jax.named_scope("generate"):
        keys_N = _keys(key, numbers_N, times_N)
        drawn = _draw(models.actor, answered, keys_N, config.sampling, config)
    with jax.named_scope("score"):
        said = scores(models, frozen, answered, drawn, config)
    relative_N = said.rewards - answered.reference_scores
    old_NxR = drawn.log_probs if said.log_probs is None else said.log_probs
    old_NxR = jnp.where(drawn.mask, old_NxR, 0.0)
    learned_NxR = drawn.mask
    if config.truncated == "mask":
        learned_NxR &= ~drawn.truncated[:, None]
    goals_N = _goals(relative_N, drawn.truncated, config)
    kl_NxR = jnp.where(drawn.mask, token_kl(old_NxR, said.reference, "k1"), 0.0)
    penalty_NxR = token_kl(old_NxR, said.reference, config.kl_estimator)
    rewards_NxR = token_rewards(goals_N, penalty_NxR, drawn.mask, kl_coefficient)
    scaled_NxR = rewards_NxR
    if config.whiten_rewards:
        scaled_NxR = whiten(rewards_NxR, learned_NxR, center=False)
    baseline_B = None
    if config.advantage == "remax":
        with jax.named_scope("greedy"):
            baseline_B = _greedy_goals(models, frozen, batch, key, config)
    advantages_NxR, returns_NxR = _advantages(
        scaled_NxR, said, drawn, learned_NxR, baseline_B, config
    )
    if config.whiten_advantages:
        advantages_NxR = whiten(advantages_NxR, learned_NxR, center=True)
    kl_N = jnp.sum(kl_NxR, axis=1)
    penalty_N = jnp.sum(jnp.where(drawn.mask, penalty_NxR, 0.0), axis=1)
    metrics = {
        "objective/scores": jnp.mean(said.rewards),
        "objective/scores_minus_reference": jnp.mean(relative_N),
        "objective/kl": jnp.mean(kl_N),
        "objective/non_score_reward": -kl_coefficient * jnp.mean(penalty_N),
        "objective/kl_coef": kl_coefficient,
        "objective/rlhf_reward": jnp.mean(jnp.sum(rewards_NxR, axis=1)),
        "objective/entropy": masked(-old_NxR, drawn.mask).mean,
        "length": jnp.mean(drawn.lengths.astype(jnp.float32)),
        "truncated": jnp.mean(drawn.truncated),
        "repeated": jnp.mean(drawn.finish == REPETITION),
    }
    if said.values is not None:
        metrics["val/explained_variance"] = _explained_variance(
            said.values, returns_NxR, learned_NxR
        )
    if said.log_probs is not None:
        gap_NxR = jnp.abs(drawn.log_probs - said.log_probs)
        metrics["val/sampler_gap"] = masked(gap_NxR, drawn.mask).mean
    rolled_out = Rollout(
        *texts(answered, drawn), learned_NxR, old_NxR, said.values, advantages_NxR, returns_NxR
    )
    completions = Scored(drawn.tokens, old_NxR, drawn.mask, drawn.finish, said.rewards, kl_N)
    return rolled_out, metrics, completions


def _keys(
    key: Key[Array, ""], numbers_N: Int[Array, "N"], times_N: Int[Array, "N"]
) -> Key[Array, "N"]:
    """A key for each answer, from its number and how often its prompt stood there before."""
    keys_N = row_keys(key, numbers_N)
    others_N = jax.vmap(jax.random.fold_in)(keys_N, -1 - times_N)
    return jnp.where(times_N > 0, others_N, keys_N)


def _draw(
    actor: GLM,
    batch: PPOBatch,
    keys_N: Key[Array, "N"],
    sampling: Sampling,
    config: PPOHyperparameters,
) -> Completions:
    slots = config.rollout_rows or config.rows
    return rollout_in_slots(
        actor, batch.prompts, batch.prompt_mask, keys_N, sampling, slots, config.refill
    )


def _goals(
    relative_N: Float[Array, "N"], truncated_N: Bool[Array, "N"], config: PPOHyperparameters
) -> Float[Array, "N"]:
    """The scores that are to rise: cut, then lowered for truncated answers, or left to V."""
    if config.score_clip is not None:
        relative_N = jnp.clip(relative_N, -config.score_clip, config.score_clip)
    if config.truncated == "penalty":
        relative_N -= jnp.where(truncated_N, config.truncation_penalty, 0.0)
    if config.truncated == "bootstrap":
        relative_N = jnp.where(truncated_N, 0.0, relative_N)
    return relative_N


def _greedy_goals(
    models: Trainable, frozen: Frozen, batch: PPOBatch, key: Key[Array, ""],
    config: PPOHyperparameters,
) -> Float[Array, "B"]:  # fmt: skip
    """The goals of the actor's likeliest answers: ReMax's baseline."""
    greedy = replace(config.sampling, temperature=0.0)
    drawn = _draw(models.actor, batch, row_keys(key, batch.rows), greedy, config)
    scores_B = rewards(frozen.reward, batch, drawn, config.scoring_rows, answer_widths(config))
    relative_B = scores_B - batch.reference_scores
    return _goals(relative_B, drawn.truncated, config)


def _advantages(
    rewards_NxR: Float[Array, "N R"],
    scores: Scores,
    drawn: Completions,
    learned_NxR: Bool[Array, "N R"],
    baseline_B: Float[Array, "B"] | None,
    config: PPOHyperparameters,
) -> tuple[Float[Array, "N R"], Float[Array, "N R"] | None]:
    """(advantages, returns for the critic, if there is one)."""
    K = config.samples_per_prompt
    if config.advantage == "gae":
        after_N = None
        if config.truncated == "bootstrap":
            after_N = jnp.where(drawn.truncated, scores.after, 0.0)
        return gae(rewards_NxR, scores.values, drawn.mask, config.gamma, config.lam, after_N)
    if config.advantage == "remax":
        to_go_NxR, _ = gae(
            rewards_NxR, jnp.zeros_like(rewards_NxR), drawn.mask, config.gamma, lam=1.0
        )
        off_NxR = to_go_NxR - jnp.repeat(baseline_B, K)[:, None]
        return jnp.where(drawn.mask, off_NxR, 0.0), None
    against = group_normalised if config.advantage == "grpo" else leave_one_out
    total_BxK = jnp.sum(rewards_NxR, axis=1).reshape(-1, K)
    counted_BxK = jnp.any(learned_NxR, axis=1).reshape(-1, K)
    advantages_N = against(total_BxK, counted_BxK).reshape(-1)
    return jnp.where(drawn.mask, advantages_N[:, None], 0.0), None


def _explained_variance(values_NxR, returns_NxR, mask_NxR) -> Float[Array, ""]:
    """1 - Var(R - V) / Var(R) over response tokens; 0 when the returns do not vary."""

    def variance(x_NxR):
        return masked(jnp.square(x_NxR - masked(x_NxR, mask_NxR).mean), mask_NxR).mean

    spread = variance(returns_NxR)
    unexplained = variance(returns_NxR - values_NxR) / jnp.maximum(spread, 1e-8)
    return jnp.where(spread > 1e-8, 1.0 - unexplained, 0.0)
