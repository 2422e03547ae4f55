"""Watching a PPO run on held-out prompts, and keeping the best policy that was seen there.

The noise is the evaluations' own and the same in each: watching changes nothing of the training,
and answers differ between evaluations only as far as the policy does. Those of iteration 0 are the
SFT model's own, against which the later ones are held.

Dims: B prompts, P prompt tokens, R response tokens, N held-out prompts.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from pydantic import PositiveInt

from glm_jax.checkpoint.pretrained import save_pretrained
from glm_jax.configuration import configuration
from glm_jax.data import records
from glm_jax.data.batches import prompt_arrays, span_mask
from glm_jax.data.records import Prompt
from glm_jax.decoding import Completions, rollout, row_keys
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.processes import decided, leads
from glm_jax.sampling import Sampling
from glm_jax.sharding import replicated, rows_split
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import sample
from glm_jax.train.ppo.scores import PPOBatch, Reward, rewards, texts
from glm_jax.train.progress import console, progress
from glm_jax.train.run_folder import JsonLines, read_json, read_rows, write_json
from glm_jax.train.scoring import token_log_probs
from glm_jax.train.statistics import accuracy

Row = dict[str, Any]
Figures = dict[str, float | None]


@configuration
class EvalConfig:
    """Answers to held-out prompts: before the first iteration, now and then, and at the end."""

    prompts: str | None = None
    "file of held-out prompts; without one nothing is watched"
    every: PositiveInt = 10
    "iterations between"
    reward_model: str | None = None
    "a second one, from whose scores nothing is learned"
    batch_size: PositiveInt = 128


class Judges(NamedTuple):
    """What scores the answers: the run's reward model and, where there is one, a second."""

    score: GLM | Reward
    heldout_score: GLM | None


class Answered(NamedTuple):
    drawn: Completions
    scores: tuple[Float[Array, "B"], ...]  # by each of the judges
    kl: Float[Array, "B"]  # log pi - log pi_ref of the answers


@partial(jax.jit, static_argnames="sampling")
def _answer(
    actor: GLM,
    reference: GLM,
    judges: tuple[GLM | Reward, ...],
    prompts_BxP: Int[Array, "B P"],
    mask_BxP: Bool[Array, "B P"],
    key: Key[Array, ""],
    rows_B: Int[Array, "B"],
    sampling: Sampling,
) -> Answered:
    prompts_BxP, mask_BxP, rows_B = rows_split((prompts_BxP, mask_BxP, rows_B))
    drawn = rollout(actor, prompts_BxP, mask_BxP, row_keys(key, rows_B), sampling)
    batch = PPOBatch(prompts_BxP, mask_BxP, rows_B, jnp.zeros(rows_B.shape, jnp.float32), None)
    reference_BxR = token_log_probs(
        reference, *texts(batch, drawn), sampling.max_new_tokens, sampling.temperature or 1.0
    )
    kl_B = jnp.sum(jnp.where(drawn.mask, drawn.log_probs - reference_BxR, 0.0), axis=1)
    scores = tuple(rewards(judge, batch, drawn) for judge in judges)
    return replicated(Answered(drawn, scores, kl_B))


def answers(
    actor: GLM,
    reference: GLM,
    judges: Judges,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    max_prompt: int,
    batch_size: int,
    seed: int,
) -> list[Row]:
    """A row for each prompt and mode: the sample, its scores, its KL to the reference, its length.

    A greedy answer's `kl` is the log-ratio of that one answer.
    """
    modes = {"greedy": dataclasses.replace(sampling, temperature=0.0), "sampled": sampling}
    arrays, _ = prompt_arrays(prompts, tokenizer, max_prompt)
    N, P = arrays.tokens_NxP.shape
    mask_NxP = span_mask(P - arrays.lengths_N, np.full_like(arrays.lengths_N, P), P)
    known = {name: judge for name, judge in judges._asdict().items() if judge is not None}
    size, rows = min(batch_size, N), []
    with progress("evaluation", N * len(modes), told=False) as bar:
        for mode, sampling in modes.items():
            for first in range(0, N, size):
                # the last batch is filled up, so that one shape is compiled
                of = np.minimum(np.arange(first, first + size), N - 1)
                made = _answer(
                    actor, reference, tuple(known.values()), arrays.tokens_NxP[of], mask_NxP[of],
                    jax.random.key(seed), of, sampling=sampling,
                )  # fmt: skip
                drawn, scores, kl_B = jax.device_get(made)
                for b in range(min(size, N - first)):
                    row = records.to_dict(sample.record(prompts[of[b]], 0, drawn, b, tokenizer))
                    row |= {"mode": mode, "kl": float(kl_B[b]), "length": len(row["tokens"])}
                    judged = zip(known, scores, strict=True)
                    rows.append(row | {name: float(score_B[b]) for name, score_B in judged})
                bar.update(len(rows))
    return rows


def figures(rows: Sequence[Row], sft_rows: Sequence[Row]) -> Figures:
    """`eval/<mode>/<figure>`, and `eval/<mode>/<figure>/<category>` for each category.

    `sft_rows`: the SFT model's answers to the same prompts, in the same order.
    """
    found: Figures = {}
    pairs = list(zip(rows, sft_rows, strict=True))
    for mode in dict.fromkeys(row["mode"] for row in rows):
        of_mode = [pair for pair in pairs if pair[0]["mode"] == mode]
        categories = {pair[0].get("category") for pair in of_mode} - {None}
        groups = {"": of_mode} | {
            f"/{name}": [pair for pair in of_mode if pair[0].get("category") == name]
            for name in sorted(categories)
        }
        for suffix, group in groups.items():
            for name, value in _figures(*zip(*group, strict=True)).items():
                found[f"eval/{mode}/{name}{suffix}"] = value
    return found


def _figures(rows: Sequence[Row], sft_rows: Sequence[Row]) -> Figures:
    found: Figures = {}
    for judge in Judges._fields:
        if judge in rows[0]:
            ours_N, theirs_N = scores_of(rows, judge), scores_of(sft_rows, judge)
            found[judge] = float(np.mean(ours_N))
            found[f"{judge}_minus_reference"] = float(np.mean(ours_N - theirs_N))
            margins_N = np.round(ours_N - theirs_N, 9)
            found[judge.replace("score", "win_rate")] = accuracy(margins_N)["accuracy"]
    return found | {
        "kl": float(np.mean([row["kl"] for row in rows])),
        "length": float(np.mean([row["length"] for row in rows])),
        "truncated": float(np.mean([row["finish"] == "length" for row in rows])),
        "distinct_4": distinct([row["tokens"] for row in rows], 4),
    }


def scores_of(rows: Iterable[Row], judge: str, mode: str | None = None) -> np.ndarray:
    """The scores by one of the judges, of one mode or of all rows, [N]."""
    return np.array([row[judge] for row in rows if mode in (None, row["mode"])])


def distinct(answers: Iterable[Sequence[int]], n: int) -> float | None:
    """The share of different n-grams among all of the answers' (Li et al., 2016, distinct-n).

    None when no answer is as long as that.
    """
    grams = [tuple(a[i : i + n]) for a in answers for i in range(len(a) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


class Watch:
    """The evaluations of a run in its folder, cut back on opening to those before `start`.

    evaluation/<iteration>.jsonl holds the answers, evaluation.jsonl the figures. Raises InputError
    when those that are there answer other prompts.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        answer: Callable[[GLM], list[Row]],
        prompts: Sequence[Prompt],
    ):
        """`answer(actor)` answers the held-out prompts."""
        files = sorted((folder / "evaluation").glob("*.jsonl"))
        if start and files:
            asked = [row["prompt"] for row in read_rows(files[0]) if row["mode"] == "greedy"]
            if asked != [prompt.prompt for prompt in prompts]:
                raise InputError(
                    f"eval.prompts: the file has changed; {files[0]} answers other prompts"
                )
        self._folder, self._answer = folder, answer
        self.scores: dict[str, dict[int, np.ndarray]] = {name: {} for name in Judges._fields}
        self._sft_rows: list[Row] = []
        self._log = JsonLines(folder / "evaluation.jsonl", start)
        for file in files:
            if int(file.stem) < start:
                self._remember(int(file.stem), read_rows(file))
            elif leads():
                file.unlink()

    def evaluate(self, i: int, actor: GLM) -> Figures:
        """Answers, writes the rows and the figures, and tells the main ones."""
        begun = time.perf_counter()
        rows = self._answer(actor)
        self._remember(i, rows)
        found = figures(rows, self._sft_rows)
        if leads():
            records.write(self._folder / "evaluation" / f"{i:05d}.jsonl", rows)
        self._log.write({"step": i, **found})
        told = {"score": "score", "win_rate": "win rate", "heldout_score": "held-out score"}
        told |= {"kl": "KL", "length": "length"}
        parts = [
            f"{words} {found[f'eval/sampled/{name}']:.2f}"
            for name, words in told.items()
            if f"eval/sampled/{name}" in found
        ]
        seconds = time.perf_counter() - begun
        console.print(
            f"evaluation after {i} iterations: {', '.join(parts)} ({seconds:.1f} s)",
            highlight=False,
        )
        return found

    def close(self) -> None:
        self._log.close()

    def _remember(self, i: int, rows: list[Row]) -> None:
        if i == 0:
            self._sft_rows = rows
        for name, by_iteration in self.scores.items():
            if name in rows[0]:
                by_iteration[i] = scores_of(rows, name, "sampled")


def keep_best(
    folder: Path, i: int, found: Figures, actor: GLM, tokenizer: Tokenizer, budget: float | None
) -> None:
    """Keeps the actor as `best` when its evaluation has the highest sampled score of those whose KL
    is within the budget: by the second reward model where there is one.

    best.json beside it says which it is. A resumed run comes to the same one again.
    """
    by = next(name for name in ("heldout_score", "score") if f"eval/sampled/{name}" in found)
    score, kl = found[f"eval/sampled/{by}"], found["eval/sampled/kl"]
    file = folder / "best.json"
    if budget is not None and kl > budget:
        return
    if decided(lambda: file.exists() and bool(score <= read_json(file)["score"])):
        return
    save_pretrained(actor, folder / "best", tokenizer)
    write_json(file, {"iteration": i, "by": by, "score": score, "kl": kl})
