"""The configuration of a PPO run, and what must hold before anything is compiled."""

import dataclasses
from typing import Annotated

import jax
from pydantic import Field, NonNegativeInt, PositiveInt

from glm_jax.attention import check_platform
from glm_jax.configuration import configuration
from glm_jax.errors import InputError
from glm_jax.mesh import MeshConfig
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import trackers
from glm_jax.train.ppo.alarms import AlarmsConfig
from glm_jax.train.ppo.batch import ReferenceConfig
from glm_jax.train.ppo.guards import GuardsConfig
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.reward_functions import RewardFunctionConfig
from glm_jax.train.ppo.watch import EvalConfig
from glm_jax.train.trackers import Tracker

# What may differ when a run is started again: nothing of what was computed depends on it.
MAY_DIFFER = "ppo.iterations", "checkpoint_every", "eval.every", "trackers"


@configuration
class PPOConfig:
    run: str = ""
    "the run's folder; the model comes to lie in its subfolder `model`"
    model: str = ""
    "folder of the SFT model: where the actor starts, and the reference of the KL"
    reward_model: str = ""
    "folder of the reward model; or"
    reward_function: RewardFunctionConfig | None = None
    "a function in its place"
    prompts: str = ""
    "file of prompts"
    supervised: tuple[str, ...] = ()
    "files of dialogues for the supervised term"
    max_prompt: Annotated[int, Field(ge=4)] = 128
    "tokens; longer prompts are cut from the left, and counted"
    max_length: PositiveInt = 256
    "tokens of a supervised dialogue"
    ppo: PPOHyperparameters = PPOHyperparameters()
    reference: ReferenceConfig = ReferenceConfig()
    eval: EvalConfig = EvalConfig()
    guards: GuardsConfig = GuardsConfig()
    alarms: AlarmsConfig = AlarmsConfig()
    mesh: MeshConfig = MeshConfig()
    max_skipped: NonNegativeInt = 8
    "updates in a row that were skipped, since a loss or gradient was not finite: more stop the run"
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    "where metrics go besides metrics.jsonl"
    checkpoint_every: PositiveInt = 10
    seed: Annotated[int, Field(ge=0, lt=2**32 - 2)] = 0


def check(config: PPOConfig) -> PPOHyperparameters:
    """The program's settings, once the configuration has been found sound."""
    if config.ppo.supervised_coefficient and not config.supervised:
        raise InputError("ppo.supervised_coefficient needs `supervised`, files of dialogues")
    if config.eval.reward_model and not config.eval.prompts:
        raise InputError("eval.reward_model needs `eval.prompts`, a file of held-out prompts")
    check_source(config)
    check_platform(config.ppo.attention, jax.default_backend())
    _ = config.ppo.old  # raises where bfloat16 would take sampled log-probs
    trackers.check(config.trackers)
    expected = Tokenizer.load(config.model).fingerprint
    for path in filter(None, (config.reward_model, config.eval.reward_model)):
        if Tokenizer.load(path).fingerprint != expected:
            raise InputError(f"{path} has another tokenizer than {config.model}")
    if config.guards.on_max_kl == "adapt" and config.guards.max_kl is not None:
        return dataclasses.replace(config.ppo, kl_limit=config.guards.max_kl)
    return config.ppo


def check_source(config: PPOConfig) -> None:
    """Raises InputError unless rewards come from one source."""
    if bool(config.reward_model) == (config.reward_function is not None):
        raise InputError("give one source of rewards: `reward_model`, or `reward_function`")


def check_room(config: PPOConfig, model: GLM, path: str, vocabulary: int) -> None:
    """Raises InputError when a text, or the tokenizer's vocabulary, is too large for a model."""
    room = model.config.max_position_embeddings
    if vocabulary > model.config.vocab_size:
        raise InputError(
            f"{path}: {model.config.vocab_size} embeddings for a tokenizer of {vocabulary} tokens"
        )
    wanted = {
        "max_prompt + ppo.sampling.max_new_tokens":
            config.max_prompt + config.ppo.sampling.max_new_tokens,
        "max_length": config.max_length if config.ppo.supervised_coefficient else 0,
    }  # fmt: skip
    for name, tokens in wanted.items():
        if tokens > room:
            raise InputError(f"{name} ({tokens}) is beyond the {room} positions of {path}")
