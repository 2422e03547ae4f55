"""What is done with an iteration of PPO once it has been read: logged, guarded, alarmed about."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glm_jax.data.records import Prompt
from glm_jax.errors import RunStopped
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.ppo.alarms import Alarms, AlarmsConfig
from glm_jax.train.ppo.completions import keep_batch, write_completions
from glm_jax.train.ppo.guards import GuardsConfig, check_program, check_skipped, guard
from glm_jax.train.ppo.iteration import PPOState
from glm_jax.train.ppo.rollout import Scored
from glm_jax.train.ppo.scores import PPOBatch
from glm_jax.train.ppo.watch import Row, Watch, keep_best
from glm_jax.train.progress import console
from glm_jax.train.run_folder import JsonLines, read_rows
from glm_jax.train.trackers import Log

Callback = Callable[[int, Mapping[str, float], Scored], None]


class Observer(NamedTuple):
    """`after` and `look` are what `loop.train` calls."""

    after: Callable[[int, Mapping[str, float], Sequence[Scored]], None]
    look: Callable[[int, PPOState], None]


@contextmanager
def observing(
    folder: Path,
    start: int,
    track: Log,
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    batch_at: Callable[[int], PPOBatch],
    answer: Callable[[GLM], list[Row]],
    held_out: Sequence[Prompt],
    *,
    guards: GuardsConfig,
    alarms: AlarmsConfig,
    max_skipped: int,
    compute: str,
    callback: Callback | None = None,
) -> Iterator[Observer]:
    """Opens the files of a run, cut back to the steps before `start`.

    `answer(actor)` answers the prompts `held_out`; `compute` is the dtype of the program.
    """
    lengths = (row["length"] for row in read_rows(folder / "metrics.jsonl") if start)
    sft_length = next(lengths, None)  # the first answers are the SFT model's
    kept: Path | None = None  # the first batch that was skipped too often: one more may be running
    with ExitStack() as stack:
        log = stack.enter_context(closing(JsonLines(folder / "completions.jsonl", start)))
        alarm = stack.enter_context(closing(Alarms(folder, alarms, start)))
        watch = stack.enter_context(closing(Watch(folder, start, answer, held_out)))

        def after(i: int, metrics: Mapping[str, float], outputs: Sequence[Scored]) -> None:
            nonlocal sft_length, kept
            (completions,), batch = outputs, batch_at(i)
            track(i, metrics)
            write_completions(log, i, batch, completions, prompts, tokenizer)
            if callback is not None:
                callback(i, metrics, completions)
            try:
                check_skipped(i, metrics, max_skipped)
            except RunStopped as stopped:
                kept = kept or keep_batch(folder, i, batch, completions)
                raise RunStopped(f"{stopped}; the batch is in {kept}") from None
            check_program(i, metrics, None if i > start else compute)
            # in float64, as it is when the alarms read the lines again
            samples = len(completions.finish) // len(batch.rows)
            references_N = np.repeat(batch.reference_scores, samples)
            rewarded_N = np.subtract(completions.scores, references_N, dtype=np.float64)
            alarm.iteration(i, metrics, rewarded_N, completions.mask.sum(axis=1))
            sft_length = sft_length or metrics["length"]
            if told := guard(guards, i, metrics, sft_length):
                console.print(told, highlight=False)

        def look(i: int, state: PPOState) -> None:
            figures = watch.evaluate(i, state.trainable.actor)
            track(i, figures)
            alarm.evaluation(i, watch.scores["score"], watch.scores["heldout_score"])
            keep_best(folder, i, figures, state.trainable.actor, tokenizer, alarms.kl)

        yield Observer(after, look)
