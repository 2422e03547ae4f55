"""What an iteration is fed, and what its models say of the answers.

Dims: B prompts, K answers of each, N = B x K rows, M of them at a time; P prompt tokens, R
response tokens, T = P + R.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.decoding import Completions
from glm_jax.model import GLM
from glm_jax.sharding import rows_split
from glm_jax.train import micro_batches
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.objective import Trainable
from glm_jax.train.scoring import spoken
from glm_jax.train.sft import SFTBatch


class PPOBatch(NamedTuple):
    """What an iteration is fed: left-padded prompts, and supervised data for each update."""

    prompts: Int[Array, "B P"]
    prompt_mask: Bool[Array, "B P"]
    rows: Int[Array, "B"]  # the prompts' places in the prompt set: they seed the noise
    reference_scores: Float[Array, "B"]  # r(x, y_ref)
    supervised: SFTBatch | None  # [U, S, T] each; None when its coefficient is 0


Reward = Callable[[PPOBatch, Completions], Float[Array, "N"]]
"""A reward as a JAX function, wrapped in `jax.tree_util.Partial`. Its batch has a row for each
answer."""


class Frozen(NamedTuple):
    """What a run uses and never changes."""

    reference: GLM
    reward: GLM | Reward


class Scores(NamedTuple):
    """What the models say of the answers; None where they are not asked."""

    rewards: Float[Array, "N"] | None  # r(x, y)
    reference: Float[Array, "N R"]  # log-probs
    log_probs: Float[Array, "N R"] | None  # the actor's, where they are recomputed
    values: Float[Array, "N R"] | None
    after: Float[Array, "N"] | None  # the value of what follows a whole row


def with_answers(batch: PPOBatch, K: int) -> PPOBatch:
    """The batch with a row for each answer."""
    repeated = jax.tree.map(lambda x: jnp.repeat(x, K, axis=0), batch._replace(supervised=None))
    return rows_split(jax.tree.map(jnp.asarray, repeated))


def rewards(
    reward: GLM | Reward, batch: PPOBatch, drawn: Completions, rows: int | None = None,
    widths: tuple[int, ...] | None = None,
) -> Float[Array, "N"]:  # fmt: skip
    """r(x, y) of the answers, by a model `rows` at a time; the batch has a row for each."""
    if not isinstance(reward, GLM):
        return reward(batch, drawn)
    widths = widths or (drawn.tokens.shape[1],)
    given = texts(batch, drawn)
    return micro_batches.mapped(
        lambda some: reward(*rows_split(some)), given, drawn.lengths, rows, widths
    )


def scores(
    models: Trainable, frozen: Frozen, batch: PPOBatch, drawn: Completions,
    config: PPOHyperparameters,
) -> Scores:  # fmt: skip
    """Everything that the updates will need to know of the answers, by one pass of each model."""
    P = batch.prompts.shape[1]
    temperature, chunk = config.sampling.temperature, config.log_prob_chunk
    recomputed = config.old == "recomputed"

    def log_probs(actor: GLM, hidden_MxSxD, tokens_MxT):
        return spoken(actor, hidden_MxSxD[:, :-1], tokens_MxT[:, P:], temperature, chunk).log_probs

    def some(rows) -> Scores:
        rows = rows_split(rows)
        S = rows[0].shape[1] - P + 1  # states: after the prompt, and after each token of the answer
        hidden_MxSxD = frozen.reference.hidden(*rows, S)
        reference_MxR = log_probs(frozen.reference, hidden_MxSxD, rows[0])
        rewards_M = frozen.reward(*rows) if isinstance(frozen.reward, GLM) else None
        own_MxR = values_MxR = after_M = None
        if recomputed or config.share_trunk:
            hidden_MxSxD = models.actor.hidden(*rows, S)
        if recomputed:
            own_MxR = log_probs(models.actor, hidden_MxSxD, rows[0])
        if models.critic is not None:
            if not config.share_trunk:
                hidden_MxSxD = models.critic.hidden(*rows, S)
            values_MxS = models.critic.outputs(hidden_MxSxD)[..., 0]
            values_MxR, after_M = values_MxS[:, :-1], values_MxS[:, -1]
        return Scores(rewards_M, reference_MxR, own_MxR, values_MxR, after_M)

    found = micro_batches.mapped(
        some, texts(batch, drawn), drawn.lengths, config.scoring_rows, answer_widths(config)
    )
    if found.rewards is None:
        return found._replace(rewards=frozen.reward(batch, drawn))
    return found


def texts(batch: PPOBatch, drawn: Completions) -> tuple[Int[Array, "N T"], Bool[Array, "N T"]]:
    """Prompts and answers together, and where they are real."""
    tokens_NxT = jnp.concatenate([batch.prompts, drawn.tokens], axis=1)
    return tokens_NxT, jnp.concatenate([batch.prompt_mask, drawn.mask], axis=1)


def answer_widths(config: PPOHyperparameters) -> tuple[int, ...]:
    """Of an answer, among which the device chooses."""
    return micro_batches.widths(config.sampling.max_new_tokens, config.widths)
