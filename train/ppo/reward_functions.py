"""Rewards that are functions in place of a reward model: of texts, or of tokens.

A function of tokens is JAX: it becomes part of the compiled iteration. A function of texts is any
Python: the program calls it on the host in the middle of an iteration and waits for it, so that an
iteration is still one launch, but no longer one that never leaves the device.
"""

import hashlib
import importlib
import inspect
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.tree_util import Partial

from glm_jax.configuration import configuration
from glm_jax.data.records import Prompt
from glm_jax.decoding import Completions
from glm_jax.errors import InputError
from glm_jax.processes import several
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


_failures: list[Exception] = []  # of functions that the program called: it tells no one


def load(config: RewardFunctionConfig) -> Callable[..., Any]:
    """The function that the configuration names. Raises InputError when there is none."""
    path, _, name = config.function.rpartition(":")
    try:
        if path.endswith(".py"):
            found = runpy.run_path(path).get(name)
        else:
            found = getattr(importlib.import_module(path), name, None)
    except Exception as error:  # whatever the user's file raises
        kind = type(error).__name__
        raise InputError(f"reward_function.function: {config.function}: {kind}: {error}") from None
    if not callable(found):
        raise InputError(
            f"reward_function.function: {config.function} is no function; write "
            f"package.module:name or file.py:name"
        )
    return found


def check(reward: Reward, batch: PPOBatch, max_new_tokens: int) -> None:
    """Raises InputError unless the function gives each answer to a batch one score."""
    N = len(batch.rows)
    of = jax.ShapeDtypeStruct
    shape = N, max_new_tokens
    drawn = Completions(
        of(shape, np.int32), of(shape, np.float32), of(shape, np.bool_), of((N,), np.int32)
    )
    try:
        found = jax.eval_shape(reward, batch, drawn)
    except Exception as error:  # whatever the user's function raises
        raise InputError(f"the reward function: {type(error).__name__}: {error}") from None
    if getattr(found, "shape", None) != (N,):
        raise InputError(
            f"the reward function must return [{N}] scores of {N} answers, got {found}"
        )


@contextmanager
def failures_told() -> Iterator[None]:
    """Raises what a function of texts raised inside a program as an InputError, in one line."""
    _failures.clear()
    try:
        yield
    except jax.errors.JaxRuntimeError:
        if not _failures:
            raise
        raise InputError(_told(_failures[0])) from None


def _told(error: Exception) -> str:
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return f"the reward function failed: {kind}{error}"


def fingerprint(config: RewardFunctionConfig) -> str:
    """Name and source of the function: what a table of reference scores was made with."""
    path, _, name = config.function.rpartition(":")
    function = load(config)
    try:
        source = Path(path).read_text() if path.endswith(".py") else inspect.getsource(function)
    except (OSError, TypeError):  # a function of an extension has none
        source = path
    return f"{name} {hashlib.sha256(source.encode()).hexdigest()}"


def of_texts(score: TextReward, tokenizer: Tokenizer, prompts: Sequence[Prompt]) -> Reward:
    """The function as a part of programs whose batches' rows are places in `prompts`."""

    def scored(rows_N, tokens_NxR, lengths_N) -> np.ndarray:
        texts = [
            tokenizer.decode_response(tokens[:length].tolist())
            for tokens, length in zip(tokens_NxR, lengths_N, strict=True)
        ]
        scores_N = np.asarray(score([prompts[row] for row in rows_N], texts))
        if scores_N.shape != (len(texts),):
            raise InputError(
                f"it must return {len(texts)} scores, one for each response; got an array of "
                f"shape {scores_N.shape}"
            )
        return scores_N.astype(np.float32)

    def asked(*given: Any) -> np.ndarray:
        try:
            return scored(*map(np.asarray, given))
        except Exception as error:
            _failures.append(error)
            if several():  # whose devices would wait for this one
                print(f"glm-rlhf: error: {_told(error)}", file=sys.stderr, flush=True)
                os._exit(2)
            raise

    def reward(batch: PPOBatch, drawn: Completions) -> jax.Array:
        result = jax.ShapeDtypeStruct(drawn.finish.shape, np.float32)
        return jax.pure_callback(asked, result, batch.rows, drawn.tokens, drawn.lengths)

    return Partial(reward)
