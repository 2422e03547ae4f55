"""What the compiled PPO iteration depends on. docs/training.md has each option's formula."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from glm_jax.attention import Attention, check_dtype
from glm_jax.configuration import configuration
from glm_jax.errors import InputError
from glm_jax.sampling import Sampling
from glm_jax.stack import Remat
from glm_jax.train.advantages import KLEstimator
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.update import check_layerwise, default_compute

Rows = PositiveInt | None

# Settings that mean something to some estimators of the advantage alone.
MEANT_FOR = {
    "gamma": ("gae", "remax"), "lam": ("gae",), "value_clip": ("gae",),
    "value_coefficient": ("gae",), "share_trunk": ("gae",), "critic_warmup": ("gae",),
}  # fmt: skip


@configuration
class PPOHyperparameters:
    """All that the compiled iteration depends on."""

    sampling: Sampling = Sampling(max_new_tokens=128)
    iterations: PositiveInt = 600
    batch_size: PositiveInt = 64
    "prompts an iteration"
    samples_per_prompt: PositiveInt = 1
    "answers to each of them"
    epochs: PositiveInt = 2
    minibatches: PositiveInt = 2
    "of each epoch"
    score_clip: PositiveFloat | None = None
    "scores, less those of the reference answers, are cut to [-score_clip, score_clip]"
    truncated: Literal["keep", "penalty", "mask", "bootstrap"] = "keep"
    """answers cut off at max_new_tokens: learned from like others, at a lower score, not at all, or
    with the critic's value of what would follow in place of the score"""
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
    advantage: Literal["gae", "grpo", "rloo", "remax"] = "gae"
    """by a critic, or without one: against the other answers to the prompt, scaled (grpo) or not
    (rloo), or against the greedy answer (remax)"""
    gamma: NonNegativeFloat = 1.0
    lam: NonNegativeFloat = 0.95
    "lambda of generalised advantage estimation"
    clip: PositiveFloat = 0.2
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    "largest ratio that counts where the advantage is negative"
    value_clip: PositiveFloat | None = 0.2
    "None: values are not clipped"
    value_coefficient: NonNegativeFloat = 1.0
    share_trunk: bool = False
    "the critic is a head on the actor, not a model of its own"
    critic_warmup: NonNegativeInt = 0
    "first iterations, in which only the critic learns"
    entropy_coefficient: NonNegativeFloat = 0.0
    "weight of the policy's entropy, which is raised"
    supervised_coefficient: NonNegativeFloat = 0.3
    "weight of the next-token loss on supervised data"
    supervised_batch_size: PositiveInt = 16
    "dialogues an update"
    actor: OptimizerConfig = OptimizerConfig(learning_rate=5e-5)
    critic: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    compute: Literal["float32", "bfloat16"] | None = None
    "dtype of the forward and backward passes; None: float32 on a CPU, bfloat16 on accelerators"
    attention: Attention = "plain"
    """of whole texts, in scoring and updates: plain, or by a kernel, which keeps no scores: splash
    on TPUs, cudnn on GPUs; decoding stays plain"""
    old_log_probs: Literal["sampled", "recomputed"] | None = None
    "the ratio's denominator; None: as it was sampled in float32, recomputed in bfloat16"
    rollout_rows: Rows = None
    "answers drawn at a time; None: all"
    refill: NonNegativeInt = 0
    """of the `rollout_rows`, so many that have ended wait for the next prompts, which are then read
    together; 0: the next prompts start when all have ended"""
    scoring_rows: Rows = None
    "answers scored at a time; None: all"
    update_rows: Rows = None
    "answers of a minibatch that go through the backward pass at a time; None: all"
    widths: PositiveInt = 1
    "widths of an answer among which scoring and updates choose; each is compiled"
    sort_by_length: bool = False
    "minibatches hold answers of like length, in random order"
    layerwise: bool = False
    "each layer's weights move as soon as its gradient is known, which is never in memory whole"
    remat: Remat = "none"
    "what the backward pass computes again of each layer: see docs/training.md"
    log_prob_chunk: PositiveInt | None = None
    "tokens of an answer that have logits in memory at a time; None: all"

    def __post_init__(self):
        self._check_sizes()
        check_dtype(self.attention, self.compute)
        if self.sampling.temperature == 0:
            raise InputError("sampling.temperature: at 0 a rollout explores nothing; take more")
        if self.sampling.top_k or self.sampling.top_p < 1:
            raise InputError(
                "sampling.top_k, sampling.top_p: the ratio is of probabilities over all tokens; "
                "sample from all of them with 0 and 1"
            )
        if self.kl_target is not None and self.kl_coefficient == 0:
            raise InputError("kl_target: a kl_coefficient of 0 stays 0; start from more")
        if self.kl_target is not None and 0.2 * self.rows >= self.kl_horizon:
            raise InputError(
                f"kl_horizon ({self.kl_horizon:g}) must be above a fifth of an iteration's "
                f"{self.rows} answers: beta would fall to 0 or below in one"
            )
        if self.kl_limit is not None and self.kl_coefficient == 0:
            raise InputError("kl_limit: a kl_coefficient of 0 stays 0; start from more")
        if self.advantage in ("grpo", "rloo") and self.samples_per_prompt < 2:
            raise InputError(
                f"advantage {self.advantage} compares answers to one prompt: samples_per_prompt "
                f"must be at least 2, got {self.samples_per_prompt}"
            )
        if self.critic_warmup >= self.iterations:
            raise InputError(
                f"critic_warmup ({self.critic_warmup}) leaves none of the {self.iterations} "
                f"iterations to the actor"
            )
        self._check_estimator()
        self.actor.check_layerwise("actor.", self.layerwise)
        if self.advantage == "gae":
            self.critic.check_layerwise("critic.", self.layerwise)
        if self.layerwise:
            self._check_layerwise()

    def _check_estimator(self) -> None:
        for name, estimators in MEANT_FOR.items():
            given = getattr(self, name) != getattr(type(self), name)
            if given and self.advantage not in estimators:
                raise InputError(
                    f"{name} means nothing to advantage {self.advantage}; leave it out"
                )
        if self.advantage == "remax" and self.whiten_rewards:
            raise InputError("whiten_rewards: advantage remax compares scores as they are")
        if self.advantage != "gae" and self.truncated == "bootstrap":
            raise InputError(f"truncated bootstrap: advantage {self.advantage} has no critic")

    def _check_layerwise(self) -> None:
        if self.micro_batches > 1:
            raise InputError("layerwise: a minibatch goes through whole; leave out update_rows")
        check_layerwise(self.remat, "layerwise")
        if self.widths > 1:
            raise InputError("layerwise: a minibatch has one width; leave out widths")
        if self.share_trunk:
            raise InputError("layerwise: with share_trunk two models would update one trunk")

    def _check_sizes(self) -> None:
        rows = self.rows
        if rows % self.minibatches:
            product = f"batch_size x samples_per_prompt ({rows})"
            raise InputError(f"minibatches ({self.minibatches}) must divide {product}")
        drawn = self.batch_size if self.advantage == "remax" else rows  # it draws greedy ones, too
        if self.refill > (self.rollout_rows or 0):
            raise InputError(
                f"refill ({self.refill}) must be at most rollout_rows ({self.rollout_rows})"
            )
        if self.refill and self.rollout_rows >= drawn:
            raise InputError(
                f"refill: all {drawn} answers are drawn at once; it needs rollout_rows below that"
            )
        for name, whole in (
            *([] if self.refill else [("rollout_rows", drawn)]),
            ("scoring_rows", drawn),
            ("update_rows", rows // self.minibatches),
        ):
            size = getattr(self, name)
            if size is not None and whole % size:
                raise InputError(f"{name} ({size}) must divide the {whole} answers it cuts up")
        if self.supervised_coefficient and self.supervised_batch_size % self.micro_batches:
            raise InputError(
                f"supervised_batch_size ({self.supervised_batch_size}) must be a multiple of the "
                f"{self.micro_batches} micro-batches that update_rows makes of a minibatch"
            )

    @property
    def rows(self) -> int:
        """Answers an iteration."""
        return self.batch_size * self.samples_per_prompt

    @property
    def row_counts(self) -> dict[str, int]:
        """Rows that go through the models together, by the settings that say so."""
        minibatch = self.rows // self.minibatches
        found = {
            "ppo.batch_size": self.batch_size,
            "ppo.rollout_rows": self.rollout_rows or self.rows,
            "ppo.scoring_rows": self.scoring_rows or self.rows,
            "ppo.update_rows": self.update_rows or minibatch,
        }
        if self.supervised_coefficient:
            found["ppo.supervised_batch_size"] = self.supervised_batch_size // self.micro_batches
        return found

    @property
    def updates(self) -> int:
        """Optimiser updates an iteration."""
        return self.epochs * self.minibatches

    @property
    def micro_batches(self) -> int:
        """Backward passes an update."""
        minibatch = self.rows // self.minibatches
        return minibatch // (self.update_rows or minibatch)

    @property
    def compute_dtype(self) -> str:
        return self.compute or default_compute()

    @property
    def old(self) -> str:
        """Where the old log-probs come from."""
        exact = self.compute_dtype == "float32"
        if self.old_log_probs == "sampled" and not exact:
            raise InputError(
                "old_log_probs sampled: in bfloat16 decoding and training round differently, so "
                "that the ratio would not start at 1; take recomputed, or compute float32"
            )
        return self.old_log_probs or ("sampled" if exact else "recomputed")
