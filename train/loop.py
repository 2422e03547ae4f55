"""The host's side of every training run: feed the step, log, checkpoint, show progress."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import jax

from glm_jax.errors import RunStopped
from glm_jax.processes import asked_to_end
from glm_jax.train.progress import progress
from glm_jax.train.run_folder import Checkpoints, JsonLines

State = TypeVar("State")
Metrics = Mapping[str, float]


def train(
    folder: Path,
    state: State,
    step: Callable[[State, Any], tuple],
    batch_at: Callable[[int], Any],
    steps: int,
    *,
    label: str,
    checkpoint_every: int,
    keep_last: bool = False,
    watch: Callable[[int, State], bool | None] | None = None,
    watch_every: int = 1,
    timing: Callable[[Metrics, float], Metrics] | None = None,
    after: Callable[[int, Metrics, Any], None] | None = None,
) -> State:
    """Runs `state, metrics, *outputs = step(state, batch_at(i))` up to `steps`, from where the
    folder's checkpoint left off.

    Metrics go to metrics.jsonl, with what `timing(metrics, seconds)` makes of the time that the
    step took. They and the outputs are read one step late, so that the device never waits for the
    host, and nowhere else. `after(i, metrics, outputs)` is called once step i has been read.
    `watch(i, state)` is called before step i for every `watch_every`-th i, and with `steps` at the
    end; all steps before it have been read by then, and training ends when it returns True.
    `keep_last` leaves a checkpoint of the end.
    """
    checkpoints = Checkpoints(folder)
    start, state = checkpoints.restore(state)
    unread: deque[tuple[int, float, Any]] = deque()
    ended = 0.0

    def read(keep: int = 0) -> None:
        """Reads every step that was run, but for the newest `keep`."""
        nonlocal ended
        while len(unread) > keep:
            i, begun, made = unread.popleft()
            metrics, outputs = jax.device_get(made)  # waits for step i
            metrics = {name: value.item() for name, value in metrics.items()}
            # a step that was handed over early begins when the one before it ends
            seconds, ended = time.perf_counter() - max(begun, ended), time.perf_counter()
            if timing is not None:
                metrics |= timing(metrics, seconds)
            log.write({"step": i, **metrics})  # first: if `after` stops the run, it says why
            bar.update(i + 1, metrics)
            if after is not None:
                after(i, metrics, outputs)

    def look(i: int) -> bool:
        if watch is None or (i % watch_every and i != steps):
            return False
        read()
        return bool(watch(i, state))

    done = start
    log_file = folder / "metrics.jsonl"
    with closing(JsonLines(log_file, start)) as log, progress(label, steps, start) as bar:
        try:
            for i in range(start, steps):
                if look(i):
                    break
                begun = time.perf_counter()
                state, metrics, *outputs = step(state, batch_at(i))
                unread.append((i, begun, (metrics, outputs)))
                done = i + 1
                read(keep=1)
                if asked_to_end(done):
                    raise RunStopped(f"{label}: asked to end; step {done} is saved, go on from it")
                if done % checkpoint_every == 0 or (keep_last and done == steps):
                    read()
                    checkpoints.save(done, state)
            else:
                read()
                look(steps)
        except RunStopped:
            with suppress(RunStopped):
                read()  # the step that ran meanwhile
            checkpoints.save(done, state)
            raise
    return state


def steps_done(folder: Path) -> int:
    """Steps of the folder's checkpoint, 0 without one."""
    return Checkpoints(folder).latest()


def finish(folder: Path) -> None:
    """Deletes the checkpoints of a run whose results are written."""
    Checkpoints(folder).delete()
