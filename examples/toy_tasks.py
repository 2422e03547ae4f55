"""PPO with a JAX function as the reward, on two tasks whose best answers are known.

    python examples/toy_tasks.py 0        # the seed

In the bandit the score of an answer is the share of one token in it; in the copy task it is the
share of places that hold the prompt's token. Models have width 32 and start from nothing; neither
task needs a tokenizer or a file.
"""

import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from glm_jax import GLM, GLMConfig, Sampling
from glm_jax.decoding import Completions
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.ppo import PPOBatch, PPOHyperparameters, init, step

VOCABULARY, TOKEN = 8, 7
PLAIN = {"kl_coefficient": 0.0, "supervised_coefficient": 0.0}


def share_of_one_token(batch: PPOBatch, answers: Completions) -> jax.Array:
    hits_BxR = (answers.tokens == TOKEN) & answers.mask
    return jnp.mean(hits_BxR.astype(jnp.float32), axis=1)


def share_copied(batch: PPOBatch, answers: Completions) -> jax.Array:
    hits_BxR = (answers.tokens == batch.prompts) & answers.mask
    return jnp.mean(hits_BxR.astype(jnp.float32), axis=1)


def bandit(**changes) -> PPOHyperparameters:
    """One update an iteration; no token ends an answer, so that the most is 1."""
    optimiser = OptimizerConfig(learning_rate=5e-4)
    plain = PLAIN | {"iterations": 100, "batch_size": 128, "epochs": 1, "minibatches": 1}
    sampling = Sampling(max_new_tokens=8, stop_ids=())
    return PPOHyperparameters(
        sampling=sampling, actor=optimiser, critic=optimiser, **(plain | changes)
    )


def copying() -> PPOHyperparameters:
    """Four tokens of eight, four updates an iteration."""
    optimiser = OptimizerConfig(learning_rate=2e-3)
    sampling = Sampling(max_new_tokens=4, stop_ids=())
    return PPOHyperparameters(
        sampling=sampling,
        actor=optimiser,
        critic=optimiser,
        iterations=300,
        batch_size=256,
        **PLAIN,
    )


def train(config: PPOHyperparameters, reward, layers: int, seed: int) -> Iterator[dict]:
    """Yields the metrics of each iteration; prompts are as many tokens as answers, at random."""
    actor, critic = model("lm", layers, seed), model("value", layers, seed + 100)
    state = init(config, actor, actor, jax.tree_util.Partial(reward), critic=critic, seed=seed)
    B, rng = config.batch_size, np.random.default_rng(seed)
    rows, zeros = np.arange(B, dtype=np.int32), np.zeros(B, np.float32)
    for _ in range(config.iterations):
        shape = B, config.sampling.max_new_tokens
        prompts = rng.integers(0, VOCABULARY, shape, np.int32)
        batch = PPOBatch(prompts, np.ones(shape, bool), rows, zeros, None)
        state, metrics, _ = step(state, batch)
        yield {name: float(value) for name, value in metrics.items()}


def model(head: str, layers: int, seed: int) -> GLM:
    config = GLMConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=2, head_dim=16,
    )  # fmt: skip
    return GLM(config, nnx.Rngs(seed), head)


if __name__ == "__main__":
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    for name, config, reward, layers in (
        ("bandit", bandit(), share_of_one_token, 1),
        ("bandit, KL coefficient 10", bandit(kl_coefficient=10.0), share_of_one_token, 1),
        ("copying", copying(), share_copied, 2),
    ):
        for i, metrics in enumerate(train(config, reward, layers, seed), start=1):
            if i == 1 or i % 20 == 0:
                score, kl = metrics["objective/scores"], metrics["objective/kl"]
                print(f"{name}: iteration {i}, score {score:.2f} at KL {kl:.3f}", flush=True)
