"""Sampling responses to a file of prompts: text, tokens, log-probabilities, finish reasons."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from glm_jax import configuration
from glm_jax.configuration import configuration as configured
from glm_jax.data import records
from glm_jax.data.batches import prompt_arrays, span_mask
from glm_jax.data.records import Prompt, Sample
from glm_jax.decoding import FINISH_REASONS, Completions, rollout, row_keys
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.sampling import Sampling
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.policy import load_policy
from glm_jax.train.progress import progress
from glm_jax.train.run_folder import read_rows


@configured
class SampleConfig:
    model: str
    "folder of the model"
    prompts: str
    "file of prompts"
    output: str
    "file of samples to write, one a line"
    n: PositiveInt = 1
    "samples of each prompt"
    sampling: Sampling = Sampling()
    max_prompt: Annotated[int, Field(ge=4)] = 128
    "longer prompts are cut from the left, and counted"
    batch_size: PositiveInt = 64
    seed: NonNegativeInt = 0


@partial(jax.jit, static_argnames="sampling")
def _rollout(model, tokens, mask, key, rows, sampling) -> Completions:
    return rollout(model, tokens, mask, row_keys(key, rows), sampling)


def draw(
    model: GLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    n: PositiveInt = 1,
    max_prompt: Annotated[int, Field(ge=4)] = 128,
    batch_size: PositiveInt = 64,
    seed: NonNegativeInt = 0,
    first_batch: int = 0,
) -> Iterator[list[Sample]]:
    """Batches of samples, prompt by prompt, from batch `first_batch` on.

    The noise of a sample depends on (seed, prompt's place, sample's number) alone.
    """
    arrays, _ = prompt_arrays(prompts, tokenizer, max_prompt)
    tokens_NxP, P = arrays.tokens_NxP, max_prompt
    mask_NxP = span_mask(P - arrays.lengths_N, np.full_like(arrays.lengths_N, P), P)
    key, total = jax.random.key(seed), len(prompts) * n
    for first in range(first_batch * batch_size, total, batch_size):
        # the last batch is filled up, so that one shape is compiled
        rows = np.minimum(np.arange(first, first + batch_size), total - 1)
        of = rows // n
        drawn = _rollout(model, tokens_NxP[of], mask_NxP[of], key, rows, sampling=sampling)
        drawn = jax.tree.map(np.asarray, drawn)
        count = min(batch_size, total - first)
        yield [record(prompts[of[i]], int(rows[i] % n), drawn, i, tokenizer) for i in range(count)]


def record(prompt: Prompt, number: int, drawn: Completions, i: int, tokenizer) -> Sample:
    """Row i of what was drawn, as the prompt's `number`-th sample."""
    length = int(drawn.mask[i].sum())
    tokens = drawn.tokens[i, :length].tolist()
    return Sample(
        id=prompt.id,
        sample=number,
        prompt=prompt.prompt,
        text=tokenizer.decode_response(tokens),
        tokens=tokens,
        log_probs=[round(float(x), 6) for x in drawn.log_probs[i, :length]],
        finish=FINISH_REASONS[drawn.finish[i]],
        category=prompt.category,
        task=prompt.task,
    )


def run(
    config: SampleConfig,
    label: str = "sampling",
    score: Callable[[list[Sample]], np.ndarray] | None = None,
) -> Path:
    """Writes the samples, going on where an earlier call with the same settings was cut off.

    Until all are drawn they lie in OUTPUT.partial, whose settings are in OUTPUT.yaml. `score` gives
    the scores to write with a batch of samples.
    """
    output = Path(config.output)
    settings, partial_file = Path(f"{output}.yaml"), Path(f"{output}.partial")
    prompts = records.read(config.prompts, Prompt)
    if settings.exists():
        if configuration.load(SampleConfig, settings) != config:
            raise InputError(f"{output} belongs to other settings: see {settings}")
        if output.exists():
            return output
    elif output.exists():
        raise InputError(f"{output} exists already; delete it, or name another file")
    model, tokenizer = load_policy(config.model)
    _, counts = prompt_arrays(prompts, tokenizer, config.max_prompt)
    if cut := counts["all"]["truncated_prompt"]:
        print(f"cut {cut} of {len(prompts)} prompts to {config.max_prompt} tokens, from the left")
    output.parent.mkdir(parents=True, exist_ok=True)
    configuration.save(config, settings)
    total, size = len(prompts) * config.n, config.batch_size
    done = len(read_rows(partial_file)) // size * size
    lines = partial_file.read_text(encoding="utf-8").split("\n")[:done] if done else []
    partial_file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    batches = draw(
        model, tokenizer, prompts, config.sampling, n=config.n, max_prompt=config.max_prompt,
        batch_size=size, seed=config.seed, first_batch=done // size,
    )  # fmt: skip
    with progress(label, total, done) as bar, open(partial_file, "a", encoding="utf-8") as file:
        for batch in batches:
            if score is not None:
                scored = zip(batch, score(batch), strict=True)
                batch = [dataclasses.replace(s, score=float(value)) for s, value in scored]
            for sample in batch:
                file.write(json.dumps(records.to_dict(sample), ensure_ascii=False) + "\n")
            file.flush()
            done += len(batch)
            bar.update(done)
    os.replace(partial_file, output)
    return output
