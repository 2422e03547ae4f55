"""PPO against a reward model, as in ChatGLM-RLHF (arXiv 2404.00934, section 3).

The reward of a response is r(x, y) - r(x, y_ref) - beta KL: y_ref, the reference answer, is the
SFT model's own, so that levels of the reward model which differ by prompt cancel.

    state = init(config, actor, reference, reward_model)
    batch_at, counts = batches(config, tokenizer, prompts, supervised)
    state, metrics, completions = step(state, batch_at(0))    # one iteration, one launch
    run(config)                                               # a whole run, in a folder
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from glm_jax.checkpoint.pretrained import load_pretrained, save_pretrained
from glm_jax.configuration import configuration, required
from glm_jax.data import records
from glm_jax.data.records import Dialogue, Prompt
from glm_jax.decoding import FINISH_REASONS
from glm_jax.errors import InputError, RunStopped
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import loop, sample
from glm_jax.train.batched import response_log_probs, score_samples
from glm_jax.train.policy import load_policy
from glm_jax.train.ppo_batches import ReferenceConfig, batches, reference_scores
from glm_jax.train.ppo_hyperparameters import PPOHyperparameters
from glm_jax.train.ppo_rollout import Scored
from glm_jax.train.ppo_scores import PPOBatch
from glm_jax.train.ppo_step import PPOState, init, ppo_step, step
from glm_jax.train.run_folder import JsonLines, begun, claim, read_json, write_json

__all__ = [
    "PPOBatch", "PPOConfig", "PPOHyperparameters", "PPOState", "ReferenceConfig", "Scored",
    "batches", "init", "reference_scores", "run", "step",
]  # fmt: skip


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
    eval_prompts: str | None = None
    "file of held-out prompts, answered before the first iteration, at the end, and every"
    eval_every: PositiveInt = 10
    "iterations between"
    max_kl: float | None = None
    "nats a response: above it the run stops, with its checkpoint saved"
    max_skipped: NonNegativeInt = 8
    "updates in a row that were skipped, since a loss or gradient was not finite: more stop the run"
    checkpoint_every: PositiveInt = 10
    seed: NonNegativeInt = 0


Callback = Callable[[int, dict[str, float], Scored], None]


def run(config: PPOConfig, callback: Callback | None = None) -> Path:
    """Trains, or resumes training, and returns the folder of the model.

    `callback(iteration, metrics, completions)` is called once an iteration has been read.
    Raises RunStopped, the checkpoint saved, when the first iteration's ratio is not 1, a metric
    is not finite, updates were skipped too often, or the KL passes `max_kl`.
    """
    required(config, "run", "model", "reward_model", "prompts")
    output = Path(config.run) / "model"
    if begun(config.run, config) and output.exists():
        return output
    _check(config)
    reference, tokenizer = load_policy(config.model)
    reward_model = load_pretrained(config.reward_model, "reward")
    prompts = records.read(config.prompts, Prompt)
    supervised = [row for file in config.supervised for row in records.read(file, Dialogue)]
    held_out = records.read(config.eval_prompts, Prompt) if config.eval_prompts else []
    plain_batch_at, counts = batches(
        config.ppo, tokenizer, prompts, supervised, max_prompt=config.max_prompt,
        max_length=config.max_length, seed=config.seed,
    )  # fmt: skip
    folder = claim(config.run, config)
    write_json(folder / "counts.json", counts)
    scores_N = _reference(folder, config, reference, reward_model, tokenizer, prompts)

    def batch_at(i: int) -> PPOBatch:
        batch = plain_batch_at(i)
        return batch._replace(reference_scores=scores_N[batch.rows])

    watch = _evaluation(folder, config, held_out, tokenizer, reference, reward_model)

    state = init(config.ppo, reference, reference, reward_model, seed=config.seed)
    frozen = state.frozen
    start = loop.steps_done(folder)
    log = JsonLines(folder / "completions.jsonl", start)

    def after(i: int, metrics: dict[str, float], outputs: list[Scored]) -> None:
        completions = jax.tree.map(np.asarray, outputs[0])
        _write_completions(log, i, batch_at(i), completions, prompts, tokenizer)
        if callback is not None:
            callback(i, metrics, completions)
        guard(config, i, metrics)

    with closing(log):
        state = loop.train(
            folder,
            state.replace(frozen=None),
            lambda state, batch: ppo_step(state, frozen, batch),
            batch_at,
            config.ppo.iterations,
            label="PPO",
            checkpoint_every=config.checkpoint_every,
            before=watch,
            after=after,
        )
    save_pretrained(state.trainable.actor, output, tokenizer)
    loop.finish(folder)
    return output


def _check(config: PPOConfig) -> None:
    if config.ppo.supervised_coefficient and not config.supervised:
        raise InputError("ppo.supervised_coefficient needs `supervised`, files of dialogues")
    tokenizers = [Tokenizer.load(path).fingerprint for path in (config.model, config.reward_model)]
    if tokenizers[0] != tokenizers[1]:
        raise InputError(f"{config.reward_model} has another tokenizer than {config.model}")


def guard(config: PPOConfig, i: int, metrics: dict[str, float]) -> None:
    """Raises RunStopped, with the likely cause, when the run should not go on."""
    if i == 0 and not metrics["val/first_log_ratio"] < 1e-4:
        raise RunStopped(
            f"before the first update the log-probabilities of sampling and training differ by "
            f"{metrics['val/first_log_ratio']:.2g} (1e-4 allowed): look at temperature, "
            f"positions and dtype"
        )
    wrong = [name for name, value in metrics.items() if not np.isfinite(value)]
    if wrong:
        raise RunStopped(f"iteration {i}: not finite: {', '.join(wrong)}")
    if metrics["update/skipped_in_a_row"] > config.max_skipped:
        raise RunStopped(
            f"iteration {i}: the loss or a gradient was not finite in "
            f"{metrics['update/skipped_in_a_row']:.0f} updates in a row ({config.max_skipped} "
            f"allowed): look at the learning rate"
        )
    if config.max_kl is not None and metrics["objective/kl"] > config.max_kl:
        raise RunStopped(
            f"iteration {i}: KL {metrics['objective/kl']:.2f} nats a response is above max_kl "
            f"({config.max_kl})"
        )


def _reference(
    folder: Path, config: PPOConfig, model: GLM, reward_model: GLM, tokenizer, prompts
) -> np.ndarray:
    """The scores of the reference answers, computed once and kept in the run's folder."""
    file = folder / "reference.json"
    if not file.exists():
        scores_N = reference_scores(
            model, reward_model, tokenizer, prompts, config.ppo.sampling, config.reference,
            max_prompt=config.max_prompt, batch_size=config.ppo.batch_size, seed=config.seed + 1,
        )  # fmt: skip
        write_json(file, scores_N.tolist())
    return np.asarray(read_json(file), np.float32)


def _write_completions(log: JsonLines, i: int, batch: PPOBatch, drawn: Scored, prompts, tokenizer):
    for b, row in enumerate(batch.rows):
        length = int(drawn.mask[b].sum())
        log.write(
            {
                "step": i,
                "id": prompts[row].id,
                "category": prompts[row].category,
                "text": tokenizer.decode_response(drawn.tokens[b, :length].tolist()),
                "score": float(drawn.scores[b]),
                "reference_score": float(batch.reference_scores[b]),
                "kl": float(drawn.kl[b]),
                "length": length,
                "finish": FINISH_REASONS[drawn.finish[b]],
            }
        )


def _evaluation(
    folder: Path, config: PPOConfig, prompts: list[Prompt], tokenizer, reference, reward_model
):
    """Answers the held-out prompts every few iterations: evaluation/<iteration>.jsonl."""
    if not prompts:
        return None

    def watch(i: int, state: PPOState) -> None:
        if i % config.eval_every and i != config.ppo.iterations:
            return
        batches = sample.draw(
            state.trainable.actor, tokenizer, prompts, config.ppo.sampling,
            max_prompt=config.max_prompt, batch_size=128, seed=config.seed + 2,
        )  # fmt: skip
        samples = [s for batch in batches for s in batch]
        scores = score_samples(reward_model, tokenizer, samples, config.max_prompt)
        anchors = response_log_probs(
            reference, tokenizer, samples, config.ppo.sampling.temperature, config.max_prompt
        )
        rows: list[dict[str, Any]] = [
            {**records.to_dict(s), "score": float(score), "kl": sum(s.log_probs) - float(anchor)}
            for s, score, anchor in zip(samples, scores, anchors, strict=True)
        ]
        (folder / "evaluation").mkdir(exist_ok=True)
        records.write(folder / "evaluation" / f"{i:05d}.jsonl", rows)

    return watch
