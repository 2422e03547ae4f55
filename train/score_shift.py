"""Scores counted from those of reference answers, whose mean becomes 0."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from glm_jax.data.batches import sft_arrays
from glm_jax.data.records import Dialogue
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.batched import score_dialogues


def centred(
    model: GLM, tokenizer: Tokenizer, reference: Sequence[Dialogue], max_length: int
) -> GLM:
    """The reward model with the mean score of these answers, cut to `max_length`, taken off.

    A pairwise loss leaves the level of scores free; with this one 0 means as good as a reference.
    """
    arrays, _ = sft_arrays(reference, tokenizer, max_length)
    if not len(arrays.rows_N):
        raise InputError("none of the reference dialogues is left to shift the scores by")
    mean = float(np.mean(score_dialogues(model, arrays), dtype=np.float64))
    return shifted(model, model.config.score_shift + mean)


def shifted(model: GLM, shift: float) -> GLM:
    """The reward model with this much, and nothing else, taken off its head's scores."""
    other = jax.tree.map(lambda w: w, model)
    other.config = dataclasses.replace(model.config, score_shift=shift)
    return other
