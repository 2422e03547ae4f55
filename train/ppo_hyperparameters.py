"""What the compiled PPO iteration depends on. docs/training.md has each option's formula."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from glm_jax.configuration import configuration
from glm_jax.errors import InputError
from glm_jax.sampling import Sampling
from glm_jax.train.advantages import KLEstimator
from glm_jax.train.optimizer import OptimizerConfig


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
    score_clip: PositiveFloat | None = None
    "scores, less those of the reference answers, are cut to [-score_clip, score_clip]"
    truncated: Literal["keep", "penalty", "mask"] = "keep"
    "answers cut off at max_new_tokens: learned from like others, at a lower score, or not at all"
    truncation_penalty: PositiveFloat = 1.0
    "subtracted from their scores, with `truncated: penalty`"
    kl_coefficient: NonNegativeFloat = 0.05
    "beta: weight of the KL to the SFT model, inside the reward"
    kl_estimator: KLEstimator = "k1"
    "of the KL inside the reward; what is reported is always k1"
    kl_target: PositiveFloat | None = None
    "nats a response to which beta adapts itself; None: beta stays"
    kl_horizon: PositiveFloat = 10_000
    "responses in which beta, when it adapts, moves by at most a fifth of itself"
    kl_limit: PositiveFloat | None = None
    "nats a response: beta grows by half after each iteration above it; see also `guards.max_kl`"
    whiten_rewards: bool = False
    "token rewards are scaled to variance 1 over the batch"
    whiten_advantages: bool = False
    "advantages are scaled to mean 0 and variance 1 over the batch; returns are not"
    gamma: NonNegativeFloat = 1.0
    lam: NonNegativeFloat = 0.95
    "lambda of generalised advantage estimation"
    clip: PositiveFloat = 0.2
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    "largest ratio that counts where the advantage is negative"
    value_clip: PositiveFloat | None = 0.2
    "None: values are not clipped"
    value_coefficient: NonNegativeFloat = 1.0
    entropy_coefficient: NonNegativeFloat = 0.0
    "weight of the policy's entropy, which is raised"
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
        if self.sampling.top_k or self.sampling.top_p < 1:
            raise InputError(
                "sampling.top_k, sampling.top_p: the ratio is of probabilities over all tokens; "
                "sample from all of them with 0 and 1"
            )
        if self.kl_target is not None and self.kl_coefficient == 0:
            raise InputError("kl_target: a kl_coefficient of 0 stays 0; start from more")
        if self.kl_limit is not None and self.kl_coefficient == 0:
            raise InputError("kl_limit: a kl_coefficient of 0 stays 0; start from more")

    @property
    def updates(self) -> int:
        """Optimiser updates an iteration."""
        return self.epochs * self.minibatches
