"""One PPO iteration as one compiled program: from prompts to updated parameters.

    roll out -> score, reference log-probs, values -> rewards, GAE -> epochs of minibatch updates

Dims: B prompts, P prompt tokens, R response tokens, U updates an iteration, S supervised rows.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from glm_jax.decoding import REPETITION, rollout, row_keys
from glm_jax.model import GLM, with_head
from glm_jax.train.advantages import adapted, gae, token_kl, token_rewards, whiten
from glm_jax.train.losses import masked
from glm_jax.train.ppo_hyperparameters import PPOHyperparameters
from glm_jax.train.ppo_update import Learner, Rollout, Trainable, minibatches, optimisers, update
from glm_jax.train.scoring import token_log_probs, token_values
from glm_jax.train.sft import SFTBatch
from glm_jax.train.update import Metrics

KL_LIMIT_FACTOR = 1.5  # of beta, after an iteration whose KL is above the limit


class Frozen(NamedTuple):
    reference: GLM
    reward_model: GLM


class PPOBatch(NamedTuple):
    """What an iteration is fed: left-padded prompts, and supervised data for each update."""

    prompts: Int[Array, "B P"]
    prompt_mask: Bool[Array, "B P"]
    rows: Int[Array, "B"]  # the prompts' places in the prompt set: they seed the noise
    reference_scores: Float[Array, "B"]  # r(x, y_ref)
    supervised: SFTBatch | None  # [U, S, T] each; None when its coefficient is 0


@struct.dataclass
class PPOState:
    """The whole state of a run; a step is given its memory to write over, `frozen` excepted."""

    trainable: Trainable
    optimiser: Trainable
    key: UInt32[Array, "2"]
    iteration: Int[Array, ""]
    kl_coefficient: Float[Array, ""]  # beta, as it has adapted itself
    skipped: Int[Array, ""]  # updates in a row whose loss or gradient was not finite
    frozen: Frozen | None  # None inside the program, which is given it by itself
    config: PPOHyperparameters = struct.field(pytree_node=False)


class Scored(NamedTuple):
    """Responses, the reward model's scores of them, and their KL to the reference in nats."""

    tokens: Int[Array, "B R"]
    log_probs: Float[Array, "B R"]
    mask: Bool[Array, "B R"]
    finish: Int[Array, "B"]
    scores: Float[Array, "B"]
    kl: Float[Array, "B"]


def init(
    config: PPOHyperparameters, actor: GLM, reference: GLM, reward_model: GLM, seed: int = 0
) -> PPOState:
    """A run's first state. The critic gets the reward model's trunk and a zeroed head.

    The given models stay usable: what will be trained is copied.
    """
    critic = with_head(reward_model, "value", nnx.Rngs(0))
    critic.head.set_value(jnp.zeros_like(critic.head[...]))
    trainable = jax.tree.map(jnp.copy, Trainable(actor, critic))
    optimiser = Trainable(*(o.init(m) for o, m in zip(optimisers(config), trainable, strict=True)))
    key = jax.random.key_data(jax.random.key(seed))
    frozen = Frozen(reference, reward_model)
    beta = jnp.float32(config.kl_coefficient)
    return PPOState(trainable, optimiser, key, jnp.int32(0), beta, jnp.int32(0), frozen, config)


def step(state: PPOState, batch: PPOBatch) -> tuple[PPOState, Metrics, Scored]:
    """One iteration, in one launch. The given state's memory is written over: use the new one."""
    frozen = state.frozen
    state, metrics, completions = ppo_step(state.replace(frozen=None), frozen, batch)
    return state.replace(frozen=frozen), metrics, completions


@partial(jax.jit, donate_argnums=0)
def ppo_step(state: PPOState, frozen: Frozen, batch: PPOBatch) -> tuple[PPOState, Metrics, Scored]:
    """The program itself. `completions.scores` are those of the reward model, as it gave them."""
    config = state.config
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.iteration)
    rollout, metrics, completions = roll_out(
        state.trainable, frozen, batch, key, state.kl_coefficient, config
    )

    def each(learner: Learner, inputs):
        rows, supervised = inputs
        return update(learner, jax.tree.map(lambda x: x[rows], rollout), supervised, config)

    B = batch.rows.shape[0]
    rows_UxM = minibatches(jax.random.fold_in(key, B), B, config)
    learner, per_update = jax.lax.scan(
        each,
        Learner(state.trainable, state.optimiser, state.skipped),
        (rows_UxM, batch.supervised),
    )
    applied_U = per_update.pop("update/applied") > 0
    metrics |= {name: masked(values_U, applied_U).mean for name, values_U in per_update.items()}
    # before any update the ratio is 1 but for rounding: what it is then checks the whole program
    metrics["val/first_log_ratio"] = per_update["val/max_log_ratio"][0]
    metrics["update/skipped"] = masked(jnp.ones_like(per_update["val/ratio"]), ~applied_U).sum
    metrics["update/skipped_in_a_row"] = learner.skipped.astype(jnp.float32)
    beta = state.kl_coefficient
    if config.kl_target is not None:
        beta = adapted(beta, metrics["objective/kl"], config.kl_target, config.kl_horizon, B)
    if config.kl_limit is not None:
        beta = jnp.where(metrics["objective/kl"] > config.kl_limit, KL_LIMIT_FACTOR * beta, beta)
    state = state.replace(
        trainable=learner.models,
        optimiser=learner.optimiser,
        iteration=state.iteration + 1,
        kl_coefficient=beta,
        skipped=learner.skipped,
    )
    return state, metrics, completions


def roll_out(
    models: Trainable,
    frozen: Frozen,
    batch: PPOBatch,
    key: Key[Array, ""],
    kl_coefficient: Float[Array, ""],
    config: PPOHyperparameters,
) -> tuple[Rollout, Metrics, Scored]:
    """Generates, scores, and turns scores into advantages."""
    sampling, R = config.sampling, config.sampling.max_new_tokens
    with jax.named_scope("generate"):
        drawn = rollout(
            models.actor, batch.prompts, batch.prompt_mask, row_keys(key, batch.rows), sampling
        )
    tokens_BxT = jnp.concatenate([batch.prompts, drawn.tokens], axis=1)
    mask_BxT = jnp.concatenate([batch.prompt_mask, drawn.mask], axis=1)
    with jax.named_scope("score"):
        scores_B = frozen.reward_model(tokens_BxT, mask_BxT)
        reference_BxR = token_log_probs(
            frozen.reference, tokens_BxT, mask_BxT, R, sampling.temperature
        )
        values_BxR = token_values(models.critic, tokens_BxT, mask_BxT, R)
    relative_B = scores_B - batch.reference_scores
    learned_BxR = drawn.mask
    if config.truncated == "mask":
        learned_BxR &= ~drawn.truncated[:, None]
    goals_B = _goals(relative_B, drawn.truncated, config)
    kl_BxR = jnp.where(drawn.mask, token_kl(drawn.log_probs, reference_BxR, "k1"), 0.0)
    penalty_BxR = token_kl(drawn.log_probs, reference_BxR, config.kl_estimator)
    rewards_BxR = token_rewards(goals_B, penalty_BxR, drawn.mask, kl_coefficient)
    scaled_BxR = rewards_BxR
    if config.whiten_rewards:
        scaled_BxR = whiten(rewards_BxR, learned_BxR, center=False)
    advantages_BxR, returns_BxR = gae(scaled_BxR, values_BxR, drawn.mask, config.gamma, config.lam)
    if config.whiten_advantages:
        advantages_BxR = whiten(advantages_BxR, learned_BxR, center=True)
    kl_B = jnp.sum(kl_BxR, axis=1)
    penalty_B = jnp.sum(jnp.where(drawn.mask, penalty_BxR, 0.0), axis=1)
    metrics = {
        "objective/scores": jnp.mean(scores_B),
        "objective/scores_minus_reference": jnp.mean(relative_B),
        "objective/kl": jnp.mean(kl_B),
        "objective/non_score_reward": -kl_coefficient * jnp.mean(penalty_B),
        "objective/kl_coef": kl_coefficient,
        "objective/rlhf_reward": jnp.mean(jnp.sum(rewards_BxR, axis=1)),
        "objective/entropy": masked(-drawn.log_probs, drawn.mask).mean,
        "val/explained_variance": _explained_variance(values_BxR, returns_BxR, learned_BxR),
        "length": jnp.mean(drawn.lengths.astype(jnp.float32)),
        "truncated": jnp.mean(drawn.truncated),
        "repeated": jnp.mean(drawn.finish == REPETITION),
    }
    rolled_out = Rollout(
        tokens_BxT, mask_BxT, learned_BxR, drawn.log_probs, values_BxR, advantages_BxR, returns_BxR
    )
    return rolled_out, metrics, Scored(*drawn, scores_B, kl_B)


def _goals(
    relative_B: Float[Array, "B"], truncated_B: Bool[Array, "B"], config: PPOHyperparameters
) -> Float[Array, "B"]:
    """The scores that are to rise: cut, then lowered for truncated answers."""
    if config.score_clip is not None:
        relative_B = jnp.clip(relative_B, -config.score_clip, config.score_clip)
    if config.truncated == "penalty":
        relative_B -= jnp.where(truncated_B, config.truncation_penalty, 0.0)
    return relative_B


def _explained_variance(values_BxR, returns_BxR, mask_BxR) -> Float[Array, ""]:
    """1 - Var(R - V) / Var(R) over response tokens; 0 when the returns do not vary."""

    def variance(x_BxR):
        return masked(jnp.square(x_BxR - masked(x_BxR, mask_BxR).mean), mask_BxR).mean

    spread = variance(returns_BxR)
    unexplained = variance(returns_BxR - values_BxR) / jnp.maximum(spread, 1e-8)
    return jnp.where(spread > 1e-8, 1.0 - unexplained, 0.0)
