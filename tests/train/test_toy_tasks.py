"""PPO on tasks whose best answer is known, with a function as the reward: three seeds each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

from glm_jax.config import GLMConfig
from glm_jax.model import GLM
from glm_jax.sampling import Sampling
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.ppo_step import PPOBatch, PPOHyperparameters, init, step

V, TOKEN = 8, 7


def model(head: str, seed: int, layers: int) -> GLM:
    """Width 32; the critic's first values are 0."""
    config = GLMConfig(
        vocab_size=V, hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=2, head_dim=16,
    )  # fmt: skip
    made = GLM(config, nnx.Rngs(seed), head)
    if head == "value":
        made.head.set_value(jnp.zeros_like(made.head[...]))
    return made


def settings(rate: float, **changes) -> PPOHyperparameters:
    optimiser = OptimizerConfig(learning_rate=rate)
    plain = {"kl_coefficient": 0.0, "supervised_coefficient": 0.0, "batch_size": 128}
    return PPOHyperparameters(actor=optimiser, critic=optimiser, **(plain | changes))


def train(config, reward, prompts, layers, seed):
    """Yields (mean score, KL) of each iteration; `prompts` are [iterations, B, P]."""
    actor, critic = model("lm", seed, layers), model("value", seed + 100, layers)
    state = init(config, actor, actor, Partial(reward), critic, seed)
    B = config.batch_size
    rows, zeros = np.arange(B, dtype=np.int32), np.zeros(B, np.float32)
    for tokens in prompts:
        batch = PPOBatch(tokens, np.ones(tokens.shape, bool), rows, zeros, None)
        state, metrics, _ = step(state, batch)
        yield float(metrics["objective/scores"]), float(metrics["objective/kl"])


def reached(scores, goal: float) -> bool:
    """Whether five iterations in a row have this mean: one alone may be luck."""
    last = []
    for score, _ in scores:
        last = [*last[-4:], score]
        if len(last) == 5 and np.mean(last) >= goal:
            return True
    return False


def share_of_one_token(tokens, mask, responses) -> jax.Array:
    hits_BxR = (responses.tokens == TOKEN) & responses.mask
    return jnp.mean(hits_BxR.astype(jnp.float32), axis=1)


def share_copied(tokens, mask, responses) -> jax.Array:
    R = responses.tokens.shape[1]
    hits_BxR = (responses.tokens == tokens[:, :R]) & responses.mask
    return jnp.mean(hits_BxR.astype(jnp.float32), axis=1)


def bandit(**changes) -> PPOHyperparameters:
    """One update an iteration; no token ends an answer, so that the most is 1."""
    sampling = Sampling(max_new_tokens=8, stop_ids=())
    return settings(5e-4, sampling=sampling, epochs=1, minibatches=1, **changes)


@pytest.mark.parametrize("seed", range(3))
def test_a_bandit_is_solved_within_100_iterations(seed):
    prompts = np.ones((100, 128, 2), np.int32)
    assert reached(train(bandit(), share_of_one_token, prompts, 1, seed), 0.95)


@pytest.mark.parametrize("seed", range(3))
def test_a_large_kl_coefficient_holds_the_bandit_where_it_was(seed):
    """At the same learning rate, over all 100 iterations."""
    prompts = np.ones((100, 128, 2), np.int32)
    found = list(train(bandit(kl_coefficient=10.0), share_of_one_token, prompts, 1, seed))
    assert len(found) == 100 and max(kl for _, kl in found) < 0.05
    assert max(score for score, _ in found) < 0.4


@pytest.mark.parametrize("seed", range(3))
def test_copying_is_learned_within_300_iterations(seed):
    """Four tokens of eight; the score of an answer is the share of its places that are right."""
    prompts = np.random.default_rng(seed).integers(0, V, (300, 128, 4), np.int32)
    config = settings(3e-3, sampling=Sampling(max_new_tokens=4, stop_ids=()))
    assert config.updates == 4
    assert reached(train(config, share_copied, prompts, 2, seed), 0.9)
