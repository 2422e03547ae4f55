"""One PPO update: the gradient of all its losses on a minibatch, and the optimisers' step.

Dims: M rows of a minibatch or of a micro-batch of it, P prompt and R response tokens, U updates an
iteration.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from glm_jax.model import GLM
from glm_jax.sharding import laid_out, rows_split
from glm_jax.train import layerwise, micro_batches
from glm_jax.train.optimizer import optimizer
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.objective import (
    Rollout,
    Trainable,
    actor_loss,
    critic_loss,
    means,
    objective,
    token_counts,
)
from glm_jax.train.scoring import token_values
from glm_jax.train.sft import SFTBatch
from glm_jax.train.update import Metrics


class Learner(NamedTuple):
    """What an update changes."""

    models: Trainable
    optimiser: Trainable
    skipped: Int[Array, ""]  # updates in a row that changed nothing else


class Backward(NamedTuple):
    """What a backward pass gives; those of micro-batches add up."""

    gradients: Trainable
    loss: Float[Array, ""]
    sums: Metrics  # over tokens
    largest: Float[Array, ""]  # |log ratio|


def update(
    learner: Learner,
    minibatch: Rollout,
    supervised: SFTBatch | None,
    config: PPOHyperparameters,
    actor_learns: Bool[Array, ""] | bool = True,
) -> tuple[Learner, Metrics]:
    """The gradient of the policy, value and supervised losses, and the step along it.

    If the loss or a gradient is not finite, weights, moments and schedules stay as they were.
    `update/applied` is 1 or 0. While `actor_learns` is False, the critic alone changes.
    """
    if config.layerwise:
        return _layerwise(learner, minibatch, supervised, config, actor_learns)
    models, optimiser, skipped = learner
    done, metrics = _backward(models, minibatch, supervised, config)
    norms = [optax.tree.norm(part) for part in done.gradients if part is not None]
    finite = jnp.all(jnp.isfinite(jnp.stack([done.loss, *norms])))
    metrics |= {"policy/grad_norm": norms[0], "update/applied": finite.astype(jnp.float32)}
    changed = []
    for optimise, gradient, state, model, learns in zip(
        optimisers(config), done.gradients, optimiser, models, (actor_learns, True), strict=True
    ):
        if model is None:
            changed.append((None, None))
            continue
        updates, moved = optimise.update(gradient, state, model)
        changed.append(
            jax.tree.map(
                lambda new, old, learns=learns: jnp.where(finite & learns, new, old),
                (optax.apply_updates(model, updates), moved),
                (model, state),
            )
        )
    models, optimiser = (laid_out(Trainable(*parts)) for parts in zip(*changed, strict=True))
    return Learner(models, optimiser, jnp.where(finite, 0, skipped + 1)), metrics


def _layerwise(
    learner: Learner,
    minibatch: Rollout,
    supervised: SFTBatch | None,
    config: PPOHyperparameters,
    actor_learns: Bool[Array, ""] | bool,
) -> tuple[Learner, Metrics]:
    """`update` with one layer's gradient at a time: of the actor, and then of the critic.

    What is not finite is found on the way: a layer whose gradient is not stays as it was, and so do
    those before it, and the critic if it was the actor's.
    """
    (models, optimiser, skipped), (of_actor, of_critic) = learner, optimisers(config)
    m, supervised = rows_split((minibatch, supervised))
    tokens, supervised_tokens = token_counts(m, supervised)

    def policy(actor: GLM):
        total, (sums, largest, _) = actor_loss(
            actor, m, supervised, tokens, supervised_tokens, config
        )
        return total, (sums, largest)

    def value(critic: GLM):
        # it waits for the actor's: XLA would have what both keep for it in memory at once
        tokens_MxT = jnp.where(actor.finite, m.tokens, 0)
        values_MxR = token_values(critic, tokens_MxT, m.mask, m.learned.shape[1])
        return critic_loss(values_MxR, m, tokens, config)

    how = config.compute_dtype, config.attention
    actor = layerwise.update(policy, models.actor, optimiser.actor, of_actor, *how, actor_learns)
    (sums, largest), finite, critic = actor.aux, actor.finite, None
    if models.critic is not None:
        critic = layerwise.update(
            value, models.critic, optimiser.critic, of_critic, *how, actor.finite
        )
        sums, finite = sums | critic.aux, finite & critic.finite
    metrics = means(sums, tokens, supervised_tokens) | {
        "val/max_log_ratio": largest,
        "policy/grad_norm": actor.norm,
        "update/applied": finite.astype(jnp.float32),
    }
    models = Trainable(actor.model, critic and critic.model)
    optimiser = Trainable(actor.optimiser, critic and critic.optimiser)
    return Learner(models, optimiser, jnp.where(finite, 0, skipped + 1)), metrics


def _backward(
    models: Trainable, minibatch: Rollout, supervised: SFTBatch | None, config: PPOHyperparameters
) -> tuple[Backward, Metrics]:
    """The gradient of the minibatch's mean loss, over all its micro-batches, and its metrics.

    Each micro-batch's sums are divided by the tokens of the whole, so that the split is nothing
    but a matter of memory.
    """
    tokens, supervised_tokens = token_counts(minibatch, supervised)
    M, R = minibatch.learned.shape
    widths = micro_batches.widths(R, config.widths)

    def some(rows: Rollout, supervised: SFTBatch | None, lengths_M: Int[Array, "M"]) -> Backward:
        def backward(rows: Rollout, supervised: SFTBatch | None) -> Backward:
            def loss(models: Trainable):
                return objective(models, rows, supervised, tokens, supervised_tokens, config)

            (value, (sums, largest)), gradients = jax.value_and_grad(loss, has_aux=True)(models)
            return Backward(laid_out(gradients), value, sums, largest)

        return micro_batches.at_width(backward, rows, supervised, lengths=lengths_M, widths=widths)

    n, lengths_M = config.micro_batches, minibatch.lengths
    if n == 1:
        done = some(minibatch, supervised, lengths_M)
    else:
        order_M = micro_batches.by_length(lengths_M, widths)
        parts = micro_batches.split((minibatch, lengths_M), order_M, M // n)
        texts = jax.tree.map(lambda x: jnp.reshape(x, (n, -1, *x.shape[1:])), supervised)

        def add(total: Backward, part) -> tuple[Backward, None]:
            (rows, lengths), texts = part
            one = some(rows, texts, lengths)
            largest = jnp.maximum(total.largest, one.largest)
            return jax.tree.map(jnp.add, total, one)._replace(largest=largest), None

        shapes = jax.eval_shape(some, *jax.tree.map(lambda x: x[0], (parts[0], texts, parts[1])))
        zeros = laid_out(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
        done, _ = jax.lax.scan(add, zeros, (parts, texts))
    metrics = means(done.sums, tokens, supervised_tokens)
    return done, metrics | {"val/max_log_ratio": done.largest}


def optimisers(config: PPOHyperparameters) -> Trainable:
    """Those of actor and critic; their schedules count the updates of a whole run."""
    updates = config.iterations * config.updates
    warmup = config.critic_warmup * config.updates  # in which the actor's does not count
    return Trainable(optimizer(config.actor, updates - warmup), optimizer(config.critic, updates))


def minibatches(
    key: Key[Array, ""], lengths_N: Int[Array, "N"], config: PPOHyperparameters
) -> Int[Array, "U M"]:
    """Each epoch's rows in a fresh order, cut into minibatches.

    Sorted by length, it is the minibatches that come in a fresh order.
    """
    N, keys = lengths_N.shape[0], jax.random.split(key, config.epochs)
    rows_ExN = jax.vmap(lambda key: jax.random.permutation(key, N))(keys)
    if config.sort_by_length:
        shape = config.epochs, config.minibatches, -1
        rows_ExN = jnp.take_along_axis(rows_ExN, jnp.argsort(lengths_N[rows_ExN], axis=1), axis=1)
        rows_ExN = jax.vmap(jax.random.permutation)(keys, rows_ExN.reshape(shape))
    return rows_ExN.reshape(config.updates, -1)
