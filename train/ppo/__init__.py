"""PPO against a reward model, as in ChatGLM-RLHF (arXiv 2404.00934, section 3).

The reward of a response is r(x, y) - r(x, y_ref) - beta KL: y_ref, the reference answer, is the
SFT model's own, so that levels of the reward model which differ by prompt cancel.

    state = init(config, actor, reference, reward_model)
    batch_at, counts = batches(config, tokenizer, prompts, supervised)
    state, metrics, completions = step(state, batch_at(0))    # one iteration, one launch
    run(config)                                               # a whole run, in a folder
"""

from glm_jax.train.ppo.alarms import AlarmsConfig
from glm_jax.train.ppo.batch import ReferenceConfig, batches, reference_scores
from glm_jax.train.ppo.config import PPOConfig
from glm_jax.train.ppo.guards import GuardsConfig
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.iteration import PPOState, init, step
from glm_jax.train.ppo.reward_functions import RewardFunctionConfig
from glm_jax.train.ppo.rollout import Scored
from glm_jax.train.ppo.scores import PPOBatch
from glm_jax.train.ppo.training import run
from glm_jax.train.ppo.watch import EvalConfig

__all__ = [
    "AlarmsConfig", "EvalConfig", "GuardsConfig", "PPOBatch", "PPOConfig", "PPOHyperparameters",
    "PPOState", "ReferenceConfig", "RewardFunctionConfig", "Scored", "batches", "init",
    "reference_scores", "run", "step",
]  # fmt: skip
