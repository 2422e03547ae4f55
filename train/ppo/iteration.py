"""One PPO iteration as one compiled program: from prompts to updated parameters.

roll out -> score, reference log-probs, values -> rewards, GAE -> epochs of minibatch updates
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct

from glm_jax.errors import InputError
from glm_jax.model import GLM, with_head
from glm_jax.sharding import laid_out, replicated
from glm_jax.train.advantages import adapted
from glm_jax.train.losses import masked
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.objective import Trainable
from glm_jax.train.ppo.rollout import Scored, roll_out
from glm_jax.train.ppo.scores import Frozen, PPOBatch, Reward
from glm_jax.train.ppo.update import Learner, minibatches, optimisers, update
from glm_jax.train.update import Metrics

KL_LIMIT_FACTOR = 1.5  # of beta, after an iteration whose KL is above the limit


@struct.dataclass
class PPOState:
    """The whole state of a run; a step is given its memory to write over, `frozen` excepted."""

    trainable: Trainable
    optimiser: Trainable
    # arrays, or in a plan their shapes
    key: Any  # UInt32[Array, "2"]
    iteration: Any  # Int[Array, ""]
    kl_coefficient: Any  # Float[Array, ""]: beta, as it has adapted itself
    skipped: Any  # Int[Array, ""]: updates in a row whose loss or gradient was not finite
    frozen: Frozen | None  # None inside the program, which is given it by itself
    config: PPOHyperparameters = struct.field(pytree_node=False)


def init(
    config: PPOHyperparameters,
    actor: GLM,
    reference: GLM,
    reward: GLM | Reward,
    critic: GLM | None = None,
    seed: int = 0,
) -> PPOState:
    """A run's first state. The given models stay usable: what will be trained is copied.

    Args:
      config: what is compiled.
      actor: the model that learns, with an `lm` head.
      reference: the model that the KL is to.
      reward: a model with a `reward` head, or a JAX function `(batch, completions) -> scores [N]`
        in `jax.tree_util.Partial`.
      critic: the trunk that it starts from; by default the reward model's, or else the actor's.
        Its head starts at zero.
      seed: of all noise.

    Raises:
      InputError: a model has another head than it should.
    """
    _check_heads(actor, reference, reward)
    if config.advantage != "gae":
        critic = None
    elif config.share_trunk:
        critic = _head_alone(actor)
    else:
        critic = critic or (reward if isinstance(reward, GLM) else actor)
        critic = with_head(critic, "value", nnx.Rngs(0))
        critic.head.set_value(jnp.zeros_like(critic.head[...]))
    trainable = jax.tree.map(jnp.copy, Trainable(actor, critic))
    optimiser = jax.jit(partial(_moments, config=config))(trainable)
    key = jax.random.key_data(jax.random.key(seed))
    beta = jnp.float32(config.kl_coefficient)
    iteration, skipped = jnp.int32(0), jnp.int32(0)
    frozen = Frozen(reference, reward)
    return PPOState(trainable, optimiser, key, iteration, beta, skipped, frozen, config)


def _moments(trainable: Trainable, config: PPOHyperparameters) -> Trainable:
    pairs = zip(optimisers(config), trainable, strict=True)
    return laid_out(Trainable(*(model and o.init(model) for o, model in pairs)))


def step(state: PPOState, batch: PPOBatch) -> tuple[PPOState, Metrics, Scored]:
    """One iteration, in one launch. The given state's memory is written over: use the new one."""
    config, frozen = state.config, state.frozen
    if len(batch.rows) != config.batch_size:
        raise InputError(
            f"a batch must have batch_size ({config.batch_size}) prompts, got {len(batch.rows)}"
        )
    if config.supervised_coefficient and batch.supervised is None:
        raise InputError("supervised_coefficient is not 0: the batch needs supervised data")
    state, metrics, completions = ppo_step(state.replace(frozen=None), frozen, batch)
    return state.replace(frozen=frozen), metrics, completions


# without excess precision a recomputed log-prob is the update's own, bit for bit, in bfloat16 too
@partial(jax.jit, donate_argnums=0, compiler_options={"xla_allow_excess_precision": False})
def ppo_step(state: PPOState, frozen: Frozen, batch: PPOBatch) -> tuple[PPOState, Metrics, Scored]:
    """The program itself. `completions.scores` are those of the reward, as it gave them."""
    config = state.config
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.iteration)
    rollout, metrics, completions = roll_out(
        state.trainable, frozen, batch, key, state.kl_coefficient, config
    )
    actor_learns = state.iteration >= config.critic_warmup

    def each(learner: Learner, inputs):
        rows, supervised = inputs
        minibatch = jax.tree.map(lambda x: x[rows], rollout)
        return update(learner, minibatch, supervised, config, actor_learns)

    # apart from the keys of the rows, which are folded in by their numbers
    order_key = jax.random.fold_in(key, 2**32 - 1)
    rows_UxM = minibatches(order_key, rollout.lengths, config)
    learner, per_update = jax.lax.scan(
        each,
        Learner(state.trainable, state.optimiser, state.skipped),
        (rows_UxM, batch.supervised),
    )
    applied_U = per_update.pop("update/applied") > 0
    # before any update the ratio is 1 but for rounding: what it is then checks the whole program
    metrics["val/first_log_ratio"] = per_update["val/max_log_ratio"][0]
    metrics["val/first_log_ratio_avg"] = per_update.pop("val/abs_log_ratio")[0]
    metrics |= {name: masked(values_U, applied_U).mean for name, values_U in per_update.items()}
    metrics["update/skipped"] = masked(jnp.ones_like(per_update["val/ratio"]), ~applied_U).sum
    metrics["update/skipped_in_a_row"] = learner.skipped.astype(jnp.float32)
    beta = state.kl_coefficient
    kl = metrics["objective/kl"]
    if config.kl_target is not None:
        beta = adapted(beta, kl, config.kl_target, config.kl_horizon, config.rows)
    if config.kl_limit is not None:
        beta = jnp.where(kl > config.kl_limit, KL_LIMIT_FACTOR * beta, beta)
    state = state.replace(
        trainable=learner.models,
        optimiser=learner.optimiser,
        iteration=state.iteration + 1,
        kl_coefficient=beta,
        skipped=learner.skipped,
    )
    return state, replicated(metrics), replicated(completions)


def _head_alone(actor: GLM) -> GLM:
    """A value head of zeros, whose trunk is the actor's."""
    critic = with_head(actor, "value", nnx.Rngs(0))
    critic.head.set_value(jnp.zeros_like(critic.head[...]))
    critic.embedding = critic.dense_blocks = critic.blocks = critic.norm = None
    return critic


def _check_heads(actor: GLM, reference: GLM, reward: GLM | Reward) -> None:
    wanted = [("actor", actor, "lm"), ("reference", reference, "lm")]
    if isinstance(reward, GLM):
        wanted.append(("reward", reward, "reward"))
    for name, model, head in wanted:
        if model.head_kind != head:
            raise InputError(f"{name} must have the head {head!r}, got {model.head_kind!r}")
