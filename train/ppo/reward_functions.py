"""Rewards that are functions in place of a reward model: of texts, or of tokens.

A function of tokens is JAX: it becomes part of the compiled iteration. A function of texts is any
Python: the program calls it on the host in the middle of an iteration and waits for it, so that an
iteration is still one launch, but no longer one that never leaves the device.
"""

import hashlib
import importlib
import inspect
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.tree_util import Partial

from glm_jax.configuration import configuration
from glm_jax.data.records import Prompt
from glm_jax.decoding import Completions
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.ppo.scores import PPOBatch, Reward

TextReward = Callable[[Sequence[Prompt], Sequence[str]], Sequence[float]]
"""`(prompts, responses) -> scores`, as many of each."""


@configuration
class RewardFunctionConfig:
    function: str
    "`package.module:name`, or `file.py:name`"
    of: Literal["texts", "tokens"] = "texts"
    """texts: Python, `(prompts, responses) -> scores`; tokens: JAX, `(batch, completions) ->
    scores`, with a row of the batch for each answer"""


def load(config: RewardFunctionConfig) -> Callable[..., Any]:
    """The function that the configuration names. Raises InputError when there is none."""
    path, _, name = config.function.rpartition(":")
    try:
        if path.endswith(".py"):
            found = runpy.run_path(path).get(name)
        else:
            found = getattr(importlib.import_module(path), name, None)
    except (ImportError, OSError, ValueError) as error:
        raise InputError(f"reward_function.function: {config.function}: {error}") from None
    if not callable(found):
        raise InputError(
            f"reward_function.function: {config.function} is no function; write "
            f"package.module:name or file.py:name"
        )
    return found


def fingerprint(config: RewardFunctionConfig) -> str:
    """Name and source of the function: what a table of reference scores was made with."""
    path, _, name = config.function.rpartition(":")
    function = load(config)
    source = Path(path).read_text() if path.endswith(".py") else inspect.getsource(function)
    return f"{name} {hashlib.sha256(source.encode()).hexdigest()}"


def of_texts(score: TextReward, tokenizer: Tokenizer, prompts: Sequence[Prompt]) -> Reward:
    """The function as a part of programs whose batches' rows are places in `prompts`."""

    def asked(*given: Any) -> np.ndarray:
        rows_N, tokens_NxR, lengths_N = map(np.asarray, given)
        texts = [
            tokenizer.decode_response(tokens[:length].tolist())
            for tokens, length in zip(tokens_NxR, lengths_N, strict=True)
        ]
        scores_N = np.asarray(score([prompts[row] for row in rows_N], texts))
        if scores_N.shape != (len(texts),):
            raise InputError(
                f"the reward function must return {len(texts)} scores, one for each response; got "
                f"an array of shape {scores_N.shape}"
            )
        return scores_N.astype(np.float32)

    def reward(batch: PPOBatch, drawn: Completions) -> jax.Array:
        result = jax.ShapeDtypeStruct(drawn.finish.shape, np.float32)
        return jax.pure_callback(asked, result, batch.rows, drawn.tokens, drawn.lengths)

    return Partial(reward)
