"""One PPO iteration as one compiled program: from prompts to updated parameters.

    roll out -> score, reference log-probs, values -> rewards, GAE -> epochs of minibatch updates

Dims: B prompts, P prompt tokens, R response tokens, U updates an iteration, S supervised rows.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int, Key, UInt32
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from glm_jax.configuration import configuration
from glm_jax.decoding import rollout, row_keys
from glm_jax.errors import InputError
from glm_jax.model import GLM, with_head
from glm_jax.sampling import Sampling
from glm_jax.train import sft
from glm_jax.train.advantages import gae, kl_k1, token_rewards
from glm_jax.train.losses import masked, policy_loss, value_loss
from glm_jax.train.optimizer import OptimizerConfig, adamw
from glm_jax.train.scoring import token_log_probs, token_values
from glm_jax.train.sft import SFTBatch
from glm_jax.train.update import Metrics


@configuration
class PPOHyperparameters:
    """All that the compiled iteration depends on."""

    sampling: Sampling = Sampling(max_new_tokens=128)
    iterations: PositiveInt = 600
    batch_size: PositiveInt = 64
    "prompts an iteration"
    epochs: PositiveInt = 2
    minibatches: PositiveInt = 2
    "of each epoch"
    kl_coefficient: NonNegativeFloat = 0.05
    "beta: weight of the KL to the SFT model, inside the reward"
    gamma: NonNegativeFloat = 1.0
    lam: NonNegativeFloat = 0.95
    "lambda of generalised advantage estimation"
    clip: PositiveFloat = 0.2
    value_clip: PositiveFloat = 0.2
    value_coefficient: NonNegativeFloat = 1.0
    supervised_coefficient: NonNegativeFloat = 0.3
    "weight of the next-token loss on supervised data"
    supervised_batch_size: PositiveInt = 16
    "dialogues an update"
    actor: OptimizerConfig = OptimizerConfig(learning_rate=5e-5)
    critic: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)

    def __post_init__(self):
        if self.batch_size % self.minibatches:
            raise InputError(
                f"minibatches ({self.minibatches}) must divide batch_size ({self.batch_size})"
            )
        if self.sampling.temperature == 0:
            raise InputError("sampling.temperature: at 0 a rollout explores nothing; take more")

    @property
    def updates(self) -> int:
        """Optimiser updates an iteration."""
        return self.epochs * self.minibatches


class Trainable(NamedTuple):
    actor: GLM
    critic: GLM


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


class Rollout(NamedTuple):
    """Responses with all that the updates need to know of them."""

    tokens: Int[Array, "B T"]
    mask: Bool[Array, "B T"]
    response: Bool[Array, "B R"]
    log_probs: Float[Array, "B R"]
    values: Float[Array, "B R"]
    advantages: Float[Array, "B R"]
    returns: Float[Array, "B R"]


def init(
    config: PPOHyperparameters, actor: GLM, reference: GLM, reward_model: GLM, seed: int = 0
) -> PPOState:
    """A run's first state. The critic gets the reward model's trunk and a zeroed head.

    The given models stay usable: what will be trained is copied.
    """
    critic = with_head(reward_model, "value", nnx.Rngs(0))
    critic.head.set_value(jnp.zeros_like(critic.head[...]))
    trainable = jax.tree.map(jnp.copy, Trainable(actor, critic))
    optimiser = Trainable(*(o.init(m) for o, m in zip(_optimisers(config), trainable, strict=True)))
    key = jax.random.key_data(jax.random.key(seed))
    frozen = Frozen(reference, reward_model)
    return PPOState(trainable, optimiser, key, jnp.int32(0), frozen, config)


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
    rollout, metrics, completions = roll_out(state.trainable, frozen, batch, key, config)

    def update(carry, inputs):
        rows, supervised = inputs
        minibatch = jax.tree.map(lambda x: x[rows], rollout)
        return _update(*carry, minibatch, supervised, config)

    order_key = jax.random.fold_in(key, batch.rows.shape[0])
    rows_UxM = _minibatches(order_key, batch.rows.shape[0], config)
    (trainable, optimiser), per_update = jax.lax.scan(
        update, (state.trainable, state.optimiser), (rows_UxM, batch.supervised)
    )
    metrics |= {name: jnp.mean(values_U) for name, values_U in per_update.items()}
    # before any update the ratio is 1 but for rounding: what it is then checks the whole program
    metrics["val/first_log_ratio"] = per_update["val/max_log_ratio"][0]
    state = state.replace(trainable=trainable, optimiser=optimiser, iteration=state.iteration + 1)
    return state, metrics, completions


def roll_out(
    models: Trainable,
    frozen: Frozen,
    batch: PPOBatch,
    key: Key[Array, ""],
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
    kl_BxR = jnp.where(drawn.mask, kl_k1(drawn.log_probs, reference_BxR), 0.0)
    relative_B = scores_B - batch.reference_scores
    rewards_BxR = token_rewards(relative_B, kl_BxR, drawn.mask, jnp.float32(config.kl_coefficient))
    advantages_BxR, returns_BxR = gae(rewards_BxR, values_BxR, drawn.mask, config.gamma, config.lam)
    kl_B = jnp.sum(kl_BxR, axis=1)
    metrics = {
        "objective/scores": jnp.mean(scores_B),
        "objective/scores_minus_reference": jnp.mean(relative_B),
        "objective/kl": jnp.mean(kl_B),
        "objective/non_score_reward": -config.kl_coefficient * jnp.mean(kl_B),
        "objective/rlhf_reward": jnp.mean(jnp.sum(rewards_BxR, axis=1)),
        "objective/entropy": masked(-drawn.log_probs, drawn.mask).mean,
        "val/explained_variance": _explained_variance(values_BxR, returns_BxR, drawn.mask),
        "length": jnp.mean(drawn.lengths.astype(jnp.float32)),
        "truncated": jnp.mean(drawn.truncated),
    }
    rolled_out = Rollout(
        tokens_BxT, mask_BxT, drawn.mask, drawn.log_probs, values_BxR, advantages_BxR, returns_BxR
    )
    return rolled_out, metrics, Scored(*drawn, scores_B, kl_B)


def _update(models: Trainable, optimiser: Trainable, minibatch: Rollout, supervised, config):
    """One backward pass for the policy, value and supervised losses, and the step along it."""

    def loss(models: Trainable) -> tuple[Float[Array, ""], Metrics]:
        m, R = minibatch, minibatch.response.shape[1]
        log_probs_MxR = token_log_probs(
            models.actor, m.tokens, m.mask, R, config.sampling.temperature
        )
        values_MxR = token_values(models.critic, m.tokens, m.mask, R)
        policy_MxR = policy_loss(log_probs_MxR, m.log_probs, m.advantages, config.clip)
        value_MxR = value_loss(values_MxR, m.values, m.returns, config.value_clip)
        policy, value = masked(policy_MxR, m.response).mean, masked(value_MxR, m.response).mean
        total = policy + config.value_coefficient * value
        log_ratio_MxR = jnp.where(m.response, log_probs_MxR - m.log_probs, 0.0)
        ratio_MxR = jnp.exp(log_ratio_MxR)
        clipped_MxR = jnp.abs(ratio_MxR - 1.0) > config.clip
        metrics = {
            "loss/policy_avg": policy,
            "loss/value_avg": value,
            "policy/approxkl_avg": masked(0.5 * jnp.square(log_ratio_MxR), m.response).mean,
            "policy/clipfrac_avg": masked(clipped_MxR.astype(jnp.float32), m.response).mean,
            "val/ratio": masked(ratio_MxR, m.response).mean,
            "val/max_log_ratio": jnp.max(jnp.abs(log_ratio_MxR)),
        }
        if supervised is not None:
            metrics["loss/supervised_avg"] = sft.loss(models.actor, supervised).mean
            total += config.supervised_coefficient * metrics["loss/supervised_avg"]
        return total, metrics

    gradients, metrics = jax.grad(loss, has_aux=True)(models)
    stepped = [
        o.update(g, s, m)
        for o, g, s, m in zip(_optimisers(config), gradients, optimiser, models, strict=True)
    ]
    updates, optimiser = (Trainable(*part) for part in zip(*stepped, strict=True))
    metrics["policy/grad_norm"] = optax.tree.norm(gradients.actor)
    return (optax.apply_updates(models, updates), optimiser), metrics


def _optimisers(config: PPOHyperparameters) -> Trainable:
    updates = config.iterations * config.updates
    return Trainable(adamw(config.actor, updates), adamw(config.critic, updates))


def _minibatches(key: Key[Array, ""], rows: int, config: PPOHyperparameters) -> Int[Array, "U M"]:
    """Each epoch's rows in a fresh order, cut into minibatches."""
    keys = jax.random.split(key, config.epochs)
    rows_ExB = jax.vmap(lambda key: jax.random.permutation(key, rows))(keys)
    return rows_ExB.reshape(config.updates, -1)


def _explained_variance(values_BxR, returns_BxR, mask_BxR) -> Float[Array, ""]:
    """1 - Var(R - V) / Var(R) over response tokens; 0 when the returns do not vary."""

    def variance(x_BxR):
        return masked(jnp.square(x_BxR - masked(x_BxR, mask_BxR).mean), mask_BxR).mean

    spread = variance(returns_BxR)
    unexplained = variance(returns_BxR - values_BxR) / jnp.maximum(spread, 1e-8)
    return jnp.where(spread > 1e-8, 1.0 - unexplained, 0.0)
