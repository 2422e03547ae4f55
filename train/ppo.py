"""PPO against a reward model, as in ChatGLM-RLHF (arXiv 2404.00934, section 3).

The reward of a response is r(x, y) - r(x, y_ref) - beta KL: y_ref, the reference answer, is the
SFT model's own, so that levels of the reward model which differ by prompt cancel.

    state = init(config, actor, reference, reward_model)
    batch_at, counts = batches(config, tokenizer, prompts, supervised)
    state, metrics, completions = step(state, batch_at(0))    # one iteration, one launch
    run(config)                                               # a whole run, in a folder
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from glm_jax.checkpoint.pretrained import load_pretrained, save_pretrained
from glm_jax.configuration import configuration, required, to_dict
from glm_jax.data import records
from glm_jax.data.records import Dialogue, Prompt
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import loop, reference_table, trackers
from glm_jax.train.policy import load_policy
from glm_jax.train.ppo_alarms import AlarmsConfig
from glm_jax.train.ppo_batches import ReferenceConfig, batches, reference_scores
from glm_jax.train.ppo_guards import GuardsConfig
from glm_jax.train.ppo_hyperparameters import PPOHyperparameters
from glm_jax.train.ppo_observer import Callback, observing
from glm_jax.train.ppo_rollout import Scored
from glm_jax.train.ppo_scores import PPOBatch
from glm_jax.train.ppo_step import PPOState, init, ppo_step, step
from glm_jax.train.ppo_watch import EvalConfig, Judges, answers
from glm_jax.train.progress import console
from glm_jax.train.run_folder import begun, claim, read_json, write_json
from glm_jax.train.trackers import Tracker

__all__ = [
    "AlarmsConfig", "EvalConfig", "GuardsConfig", "PPOBatch", "PPOConfig", "PPOHyperparameters",
    "PPOState", "ReferenceConfig", "Scored", "batches", "init", "reference_scores", "run", "step",
]  # fmt: skip

# What may differ when a run is started again: nothing of what was computed depends on it.
MAY_DIFFER = "ppo.iterations", "checkpoint_every", "eval.every", "trackers"


@configuration
class PPOConfig:
    run: str = ""
    "the run's folder; the model comes to lie in its subfolder `model`"
    model: str = ""
    "folder of the SFT model: where the actor starts, and the reference of the KL"
    reward_model: str = ""
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
    max_skipped: NonNegativeInt = 8
    "updates in a row that were skipped, since a loss or gradient was not finite: more stop the run"
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    "where metrics go besides metrics.jsonl"
    checkpoint_every: PositiveInt = 10
    seed: NonNegativeInt = 0


def run(config: PPOConfig, callback: Callback | None = None) -> Path:
    """Trains, or resumes training, and returns the folder of the model.

    `callback(iteration, metrics, completions)` is called once an iteration has been read.
    Raises RunStopped, the checkpoint saved, when the first iteration's ratio is not 1, a metric
    is not finite, updates were skipped too often, or a guard stops the run.
    """
    required(config, "run", "model", "reward_model", "prompts")
    folder = Path(config.run)
    output = folder / "model"
    if begun(folder, config, MAY_DIFFER) and _finished(folder, config):
        return output
    program = _check(config)
    reference, tokenizer = load_policy(config.model)
    reward_model = load_pretrained(config.reward_model, "reward")
    second = config.eval.reward_model and load_pretrained(config.eval.reward_model, "reward")
    prompts = records.read(config.prompts, Prompt)
    supervised = [row for file in config.supervised for row in records.read(file, Dialogue)]
    held_out = records.read(config.eval.prompts, Prompt) if config.eval.prompts else []
    plain_batch_at, counts = batches(
        program, tokenizer, prompts, supervised, max_prompt=config.max_prompt,
        max_length=config.max_length, seed=config.seed,
    )  # fmt: skip
    scores_N = _reference(config, reference, reward_model, tokenizer, prompts)
    write_json(folder / "counts.json", counts)

    def batch_at(i: int) -> PPOBatch:
        batch = plain_batch_at(i)
        return batch._replace(reference_scores=scores_N[batch.rows])

    state = init(program, reference, reference, reward_model, seed=config.seed)
    frozen = state.frozen
    start = loop.steps_done(folder)

    def timing(metrics: Mapping[str, float], seconds: float) -> dict[str, float]:
        tokens = metrics["length"] * program.batch_size
        return {"time/iteration": seconds, "time/response_tokens_per_second": tokens / seconds}

    answer = partial(
        answers, reference=reference, judges=Judges(reward_model, second or None),
        tokenizer=tokenizer, prompts=held_out, sampling=program.sampling,
        max_prompt=config.max_prompt, batch_size=config.eval.batch_size, seed=config.seed + 2,
    )  # fmt: skip
    with (
        trackers.opened(config.trackers, folder, start, to_dict(config)) as track,
        observing(
            folder, start, track, prompts, tokenizer, batch_at, answer, guards=config.guards,
            alarms=config.alarms, max_skipped=config.max_skipped, callback=callback,
        ) as observer,
    ):  # fmt: skip
        state = loop.train(
            folder,
            state.replace(frozen=None),
            lambda state, batch: ppo_step(state, frozen, batch),
            batch_at,
            program.iterations,
            label="PPO",
            checkpoint_every=config.checkpoint_every,
            keep_last=True,
            watch=observer.look if held_out else None,
            watch_every=config.eval.every,
            timing=timing,
            after=observer.after,
        )
    save_pretrained(state.trainable.actor, output, tokenizer)
    write_json(folder / "finished.json", {"iterations": program.iterations})
    return output


def _finished(folder: Path, config: PPOConfig) -> bool:
    """Whether the folder's run has done all of its iterations, and saved the model."""
    done = loop.steps_done(folder)
    if done > config.ppo.iterations:
        raise InputError(
            f"{folder}: ppo.iterations is {config.ppo.iterations}, but {done} are done already"
        )
    file = folder / "finished.json"
    ended = read_json(file)["iterations"] if file.exists() else None
    if ended is not None and not done and ended != config.ppo.iterations:
        raise InputError(f"{folder}: ended after {ended} iterations, and its checkpoint is gone")
    return ended == config.ppo.iterations


def _check(config: PPOConfig) -> PPOHyperparameters:
    """The program's settings, once the configuration has been found sound."""
    if config.ppo.supervised_coefficient and not config.supervised:
        raise InputError("ppo.supervised_coefficient needs `supervised`, files of dialogues")
    if config.eval.reward_model and not config.eval.prompts:
        raise InputError("eval.reward_model needs `eval.prompts`, a file of held-out prompts")
    trackers.check(config.trackers)
    expected = Tokenizer.load(config.model).fingerprint
    for path in filter(None, (config.reward_model, config.eval.reward_model)):
        if Tokenizer.load(path).fingerprint != expected:
            raise InputError(f"{path} has another tokenizer than {config.model}")
    if config.guards.on_max_kl == "adapt" and config.guards.max_kl is not None:
        return dataclasses.replace(config.ppo, kl_limit=config.guards.max_kl)
    return config.ppo


def _reference(
    config: PPOConfig,
    model: GLM,
    reward_model: GLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
) -> np.ndarray:
    """The scores of the reference answers, [N]: computed once, and kept in the run's folder.

    The folder is claimed once a table that is there has been found to be of this run.
    """
    reference, sampling = config.reference, config.ppo.sampling
    if reference.temperature is not None:
        sampling = dataclasses.replace(sampling, temperature=reference.temperature)
    made_of = reference_table.fingerprint(
        model, reward_model, tokenizer, prompts, sampling, reference.samples, config.max_prompt
    )
    files = [Path(config.run) / "reference.json"]
    files += [Path(reference.table)] if reference.table else []
    found = [reference_table.read(file, made_of) for file in files]
    claim(config.run, config, MAY_DIFFER)
    scores_N = next((scores_N for scores_N in found if scores_N is not None), None)
    if scores_N is None:
        scores_N = reference_scores(
            model, reward_model, tokenizer, prompts, config.ppo.sampling, reference,
            max_prompt=config.max_prompt, batch_size=config.ppo.batch_size, seed=config.seed + 1,
        )  # fmt: skip
    for file, table in zip(files, found, strict=True):
        if table is None:
            reference_table.write(file, scores_N, made_of)
    if reference.samples:
        console.print(
            f"reference answers: mean score {scores_N.mean():+.3f} on {len(scores_N)} prompts",
            highlight=False,
        )
    return scores_N
