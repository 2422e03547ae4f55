"""What the reward of an answer is made of, through the compiled iteration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import TypeCheckError

from glm_jax.data.records import Prompt
from glm_jax.decoding import rollout, row_keys
from glm_jax.model import GLM
from glm_jax.sampling import Sampling
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.advantages import token_rewards
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.ppo.batch import ReferenceConfig, batches, reference_scores
from glm_jax.train.ppo.iteration import PPOBatch, PPOHyperparameters, init, step
from glm_jax.train.run_folder import Checkpoints

B, P, R = 8, 3, 6
CONFIG = PPOHyperparameters(
    sampling=Sampling(max_new_tokens=R, temperature=0.9),
    batch_size=B,
    supervised_coefficient=0.0,
    actor=OptimizerConfig(learning_rate=1e-3),
)


def level(prompts_BxP: jax.Array) -> jax.Array:
    """c(x): from prompt to prompt another one, of several units, in quarters."""
    return (jnp.sum(prompts_BxP, axis=1) % 23).astype(jnp.float32) * 0.25 - 2.0


class Lifted(GLM):
    """A reward model whose scores are higher by `lift` times c(x)."""

    def __init__(self, config, rngs, head, lift):
        super().__init__(config, rngs, head)
        self.lift = nnx.Param(jnp.float32(lift))

    def __call__(self, input_ids, attention_mask=None):
        c_B = self.lift[...] * level(input_ids[:, :P])
        return super().__call__(input_ids, attention_mask) + c_B


def test_a_level_of_each_prompt_cancels_against_the_reference_answers(tiny):
    """r(x, y) + c(x) less r(x, y_ref) + c(x): the same updates, whatever c is."""
    rng = np.random.default_rng(0)
    tokens, rows = rng.integers(1, 20, (B, P), np.int32), np.arange(B, dtype=np.int32)
    references = rng.normal(size=B).astype(np.float32)
    c = np.asarray(level(jnp.asarray(tokens)))
    assert len(set(c.tolist())) > 4
    actor = tiny(seed=0)

    def iteration(lift, reference_scores):
        reward_model = Lifted(actor.config, nnx.Rngs(2), "reward", lift)
        batch = PPOBatch(tokens, np.ones((B, P), bool), rows, reference_scores, None)
        state, metrics, drawn = step(init(CONFIG, actor, tiny(seed=1), reward_model), batch)
        weights = np.concatenate([np.ravel(w) for w in jax.tree.leaves(state.trainable)])
        return weights, {k: float(v) for k, v in metrics.items()}, np.asarray(drawn.scores)

    weights, metrics, scores = iteration(0.0, references)
    lifted_weights, lifted_metrics, lifted_scores = iteration(1.0, references + c)
    one_sided, _, _ = iteration(1.0, references)
    np.testing.assert_allclose(lifted_scores - scores, c, atol=1e-5)
    for name in metrics.keys() - {"objective/scores", "val/first_log_ratio"}:
        assert lifted_metrics[name] == pytest.approx(metrics[name], rel=1e-3, abs=1e-4), name
    # weights whose gradient is rounding alone (the keys' biases) move by chance
    assert np.abs(lifted_weights - weights).mean() < 1e-6
    assert np.abs(one_sided - weights).mean() > 1e-4


def test_reference_answers_are_scored_as_the_answers_of_a_rollout_are(tiny):
    """The same tokens stand before them, long prompts cut alike: greedily the two are one."""
    tokenizer = Tokenizer.word_level([f"w{i}" for i in range(12)])
    prompts = [
        Prompt(id=str(i), prompt=[{"role": "user", "content": " ".join(f"w{j}" for j in range(i))}])
        for i in range(1, B + 1)
    ]
    actor, reward_model = tiny(), tiny("reward", seed=1)
    sampling, config = Sampling(max_new_tokens=R), ReferenceConfig(samples=2, temperature=0.0)
    found = reference_scores(
        actor, reward_model, tokenizer, prompts, sampling, config, max_prompt=8, batch_size=4
    )
    batch_at, counts = batches(CONFIG, tokenizer, prompts, max_prompt=8)
    assert counts["prompts"]["all"]["truncated_prompt"] > 1
    batch = batch_at(0)
    greedy = Sampling(max_new_tokens=R, temperature=0.0)
    keys = row_keys(jax.random.key(0), jnp.asarray(batch.rows))
    drawn = jax.jit(rollout, static_argnums=4)(
        actor, batch.prompts, batch.prompt_mask, keys, greedy
    )
    tokens = jnp.concatenate([batch.prompts, drawn.tokens], axis=1)
    mask = jnp.concatenate([batch.prompt_mask, drawn.mask], axis=1)
    np.testing.assert_allclose(found[batch.rows], reward_model(tokens, mask), atol=1e-5)
    assert found.std() > 0.05


def test_whole_numbers_are_no_scores():
    """In a buffer of integers a score of 0.75 would be 0."""
    kl, mask, beta = jnp.zeros((1, 2)), jnp.ones((1, 2), bool), jnp.float32(0.1)
    assert token_rewards(jnp.array([0.75]), kl, mask, beta).tolist() == [[0.0, 0.75]]
    for scores, kls in ((jnp.array([1]), kl), (jnp.array([1.0]), jnp.zeros((1, 2), int))):
        with pytest.raises(TypeCheckError):
            token_rewards(scores, kls, mask, beta)


def test_the_coefficient_that_adapts_is_saved_and_restored(tiny, tmp_path):
    state = init(CONFIG, tiny(), tiny(), tiny("reward")).replace(frozen=None)
    Checkpoints(tmp_path).save(3, state.replace(kl_coefficient=jnp.float32(0.123)))
    steps, restored = Checkpoints(tmp_path).restore(state)
    assert steps == 3 and restored.kl_coefficient == np.float32(0.123)


def test_rewards_and_advantages_are_not_normalised_unless_asked():
    config = PPOHyperparameters()
    assert not config.whiten_rewards and not config.whiten_advantages
