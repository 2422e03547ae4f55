"""A PPO run in a folder: models and prompts in, the aligned model out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial

from glm_jax.checkpoint.pretrained import architecture_of, load_pretrained, save_pretrained
from glm_jax.configuration import required, to_dict
from glm_jax.data import records
from glm_jax.data.batches import prompt_arrays
from glm_jax.data.records import Dialogue, Prompt
from glm_jax.errors import InputError
from glm_jax.mesh import mesh_for, on_mesh
from glm_jax.model import GLM
from glm_jax.sharding import placed
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import loop, trackers
from glm_jax.train.policy import load_policy
from glm_jax.train.ppo import reference_table, reward_functions
from glm_jax.train.ppo.batch import batches, reference_scores
from glm_jax.train.ppo.config import MAY_DIFFER, PPOConfig, check, check_room
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.iteration import init, ppo_step
from glm_jax.train.ppo.observer import Callback, observing
from glm_jax.train.ppo.scores import PPOBatch, Reward
from glm_jax.train.ppo.watch import Judges, answers
from glm_jax.train.progress import console
from glm_jax.train.run_folder import begun, claim, read_json, write_json
from glm_jax.train.scoring import in_dtype


@reward_functions.failures_told()
def run(config: PPOConfig, callback: Callback | None = None) -> Path:
    """Trains, or resumes training, and returns the folder of the model.

    `callback(iteration, metrics, completions)` is called once an iteration has been read.
    Raises RunStopped, the checkpoint saved, when the first iteration's ratio is not 1, a metric
    is not finite, updates were skipped too often, or a guard stops the run; InputError for input
    that will not do, and when a reward function fails.
    """
    required(config, "run", "model", "prompts")
    folder = Path(config.run)
    output = folder / "model"
    if begun(folder, config, MAY_DIFFER) and _finished(folder, config):
        return output
    program = check(config)
    paths = filter(None, (config.model, config.reward_model, config.eval.reward_model))
    mesh = mesh_for(config.mesh, [architecture_of(path) for path in paths], program.row_counts)
    with on_mesh(mesh):
        _train(config, program, mesh, callback)
    return output


def _train(
    config: PPOConfig, program: PPOHyperparameters, mesh: Mesh | None, callback: Callback | None
) -> None:
    folder = Path(config.run)
    reference, tokenizer = load_policy(config.model, mesh=mesh)
    check_room(config, reference, config.model, tokenizer.vocab_size)
    rewards = _rewards(config, tokenizer, mesh)
    second = _judge(config, config.eval.reward_model, tokenizer, mesh)
    prompts = records.read(config.prompts, Prompt)
    supervised = [row for file in config.supervised for row in records.read(file, Dialogue)]
    held_out = records.read(config.eval.prompts, Prompt) if config.eval.prompts else []
    plain_batch_at, counts = batches(
        program, tokenizer, prompts, supervised, max_prompt=config.max_prompt,
        max_length=config.max_length, seed=config.seed,
    )  # fmt: skip
    if held_out:
        counts["eval.prompts"] = prompt_arrays(held_out, tokenizer, config.max_prompt)[1]
    reward = rewards(prompts)
    if not isinstance(reward, GLM):
        reward_functions.check(reward, plain_batch_at(0), program.sampling.max_new_tokens)
    scores_N = _reference(config, reference, reward, tokenizer, prompts)
    write_json(folder / "counts.json", counts)

    def batch_at(i: int) -> PPOBatch:
        batch = plain_batch_at(i)
        return batch._replace(reference_scores=scores_N[batch.rows])

    state = placed(init(program, reference, reference, reward, seed=config.seed), mesh)
    frozen = in_dtype(state.frozen, program.compute_dtype)  # as the program reads them
    judge = frozen.reward if isinstance(reward, GLM) else rewards(held_out)
    state = state.replace(frozen=None)
    del reference, reward, rewards  # in float32 they would lie beside these
    start = loop.steps_done(folder)

    def timing(metrics: Mapping[str, float], seconds: float) -> dict[str, float]:
        tokens = metrics["length"] * program.rows
        return {"time/iteration": seconds, "time/response_tokens_per_second": tokens / seconds}

    answer = partial(
        answers, reference=frozen.reference, judges=Judges(judge, second),
        tokenizer=tokenizer, prompts=held_out, sampling=program.sampling,
        max_prompt=config.max_prompt, batch_size=config.eval.batch_size, seed=config.seed + 2,
    )  # fmt: skip
    with (
        trackers.opened(config.trackers, folder, start, to_dict(config)) as track,
        observing(
            folder, start, track, prompts, tokenizer, batch_at, answer, held_out,
            guards=config.guards, alarms=config.alarms, max_skipped=config.max_skipped,
            compute=program.compute_dtype, callback=callback,
        ) as observer,
    ):  # fmt: skip
        state = loop.train(
            folder,
            state,
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
    save_pretrained(state.trainable.actor, folder / "model", tokenizer)
    write_json(folder / "finished.json", {"iterations": program.iterations})


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


def _rewards(
    config: PPOConfig, tokenizer: Tokenizer, mesh: Mesh | None
) -> Callable[[Sequence[Prompt]], GLM | Reward]:
    """What gives the reward, of the answers to these prompts."""
    model = _judge(config, config.reward_model, tokenizer, mesh)
    if model is not None:
        return lambda prompts: model
    function = reward_functions.load(config.reward_function)
    if config.reward_function.of == "tokens":
        return lambda prompts: Partial(function)
    return lambda prompts: reward_functions.of_texts(function, tokenizer, prompts)


def _judge(
    config: PPOConfig, path: str | None, tokenizer: Tokenizer, mesh: Mesh | None
) -> GLM | None:
    if not path:
        return None
    model = load_pretrained(path, "reward", mesh=mesh)
    check_room(config, model, path, tokenizer.vocab_size)
    return model


def _reference(
    config: PPOConfig,
    model: GLM,
    reward: GLM | Reward,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
) -> np.ndarray:
    """The scores of the reference answers, [N]: computed once, and kept in the run's folder.

    The folder is claimed once a table that is there has been found to be of this run.
    """
    reference, sampling = config.reference, config.ppo.sampling
    if reference.temperature is not None:
        sampling = dataclasses.replace(sampling, temperature=reference.temperature)
    if isinstance(reward, GLM):
        of_reward = reference_table.weights_hash(reward)
    else:
        of_reward = reward_functions.fingerprint(config.reward_function)
    made_of = reference_table.fingerprint(
        model, of_reward, tokenizer, prompts, sampling, reference.samples, config.max_prompt
    )
    files = [Path(config.run) / "reference.json"]
    files += [Path(reference.table)] if reference.table else []
    found = [reference_table.read(file, made_of) for file in files]
    claim(config.run, config, MAY_DIFFER)
    scores_N = next((scores_N for scores_N in found if scores_N is not None), None)
    if scores_N is None:
        scores_N = reference_scores(
            model, reward, tokenizer, prompts, config.ppo.sampling, reference,
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
