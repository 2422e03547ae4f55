"""PPO against a reward model, as in ChatGLM-RLHF (arXiv 2404.00934, section 3).

The reward of a response is r(x, y) - r(x, y_ref) - beta KL: y_ref, the reference answer, is the
SFT model's own, so that levels of the reward model which differ by prompt cancel.

    state = init(config, actor, reference, reward_model)
    state, metrics, completions = step(state, batch)          # one iteration, one launch
    run(config)                                               # a whole run, in a folder
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from glm_jax.configuration import configuration
from glm_jax.data import records
from glm_jax.data.batches import order, prompt_arrays, sft_arrays, span_mask
from glm_jax.data.records import Dialogue, Prompt, Sample
from glm_jax.errors import InputError
from glm_jax.generation import Sampling
from glm_jax.model import GLM
from glm_jax.pretrained import load_pretrained, save_pretrained
from glm_jax.tokenizer import Tokenizer
from glm_jax.train import loop, sample, sft
from glm_jax.train.ppo_step import (
    Frozen, PPOBatch, PPOHyperparameters, PPOState, Scored, init, ppo_step, step,
)  # fmt: skip
from glm_jax.train.reward import score_samples
from glm_jax.train.run_folder import JsonLines, claim, read_json, write_json
from glm_jax.train.scoring import token_log_probs

__all__ = [
    "PPOBatch", "PPOConfig", "PPOHyperparameters", "PPOState", "Scored", "init", "run", "step",
]  # fmt: skip


@configuration
class ReferenceConfig:
    """The reference answers, whose scores are subtracted."""

    samples: int = 1
    "of each prompt; their mean score is taken. 0: no reference reward"
    greedy: bool = False


@configuration
class PPOConfig:
    run: str
    "the run's folder; the model comes to lie in its subfolder `model`"
    model: str
    "folder of the SFT model: where the actor starts, and the reference of the KL"
    reward_model: str
    prompts: str
    "file of prompts"
    supervised: tuple[str, ...] = ()
    "files of dialogues for the supervised term"
    max_prompt: int = 128
    "tokens; longer prompts are cut from the left, and counted"
    max_length: int = 256
    "tokens of a supervised dialogue"
    ppo: PPOHyperparameters = PPOHyperparameters()
    reference: ReferenceConfig = ReferenceConfig()
    eval_prompts: str | None = None
    "file of held-out prompts, answered before the first iteration, at the end, and every"
    eval_every: int = 10
    "iterations between"
    max_kl: float | None = None
    "nats a response: above it the run stops, with its checkpoint saved"
    checkpoint_every: int = 10
    seed: int = 0
