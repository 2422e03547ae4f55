"""The host's side of every training run: feed the step, log, checkpoint, show progress."""

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from glm_jax.errors import RunStopped
from glm_jax.train.progress import progress
from glm_jax.train.run_folder import Checkpoints, JsonLines, plain

State = TypeVar("State")


def train(
    folder: Path,
    state: State,
    step: Callable[[State, Any], tuple],
    batch_at: Callable[[int], Any],
    steps: int,
    *,
    label: str,
    checkpoint_every: int,
    before: Callable[[int, State], None] | None = None,
    after: Callable[[int, dict[str, float], Any], None] | None = None,
) -> State:
    """Runs `state, metrics, *outputs = step(state, batch_at(i))` up to `steps`, from where the
    folder's checkpoint left off.

    Metrics go to metrics.jsonl. They and the outputs are read one step late, so that the device
    never waits for the host. `before(i, state)` is called before step i, and with `steps` at the
    end; `after(i, metrics, outputs)` once step i has been read.
    """
    checkpoints = Checkpoints(folder)
    start, state = checkpoints.restore(state)
    pending: tuple[int, dict, Any] | None = None

    def read() -> None:
        nonlocal pending
        if pending is not None:
            i, metrics, outputs = pending
            pending, metrics = None, plain(metrics)
            log.write({"step": i, **metrics})  # first: if `after` stops the run, it says why
            bar.update(i + 1, metrics)
            if after is not None:
                after(i, metrics, outputs)

    done = start
    log_file = folder / "metrics.jsonl"
    with closing(JsonLines(log_file, start)) as log, progress(label, steps, start) as bar:
        try:
            for i in range(start, steps):
                if before is not None:
                    before(i, state)
                state, metrics, *outputs = step(state, batch_at(i))
                done = i + 1
                read()
                pending = i, metrics, outputs
                if done % checkpoint_every == 0:
                    read()
                    checkpoints.save(done, state)
            read()
        except RunStopped:
            pending = done - 1, metrics, outputs  # of the step that ran meanwhile
            with suppress(RunStopped):
                read()
            checkpoints.save(done, state)
            raise
        if before is not None:
            before(steps, state)
    return state


def steps_done(folder: Path) -> int:
    """Steps of the folder's checkpoint, 0 without one."""
    return Checkpoints(folder).latest()


def finish(folder: Path) -> None:
    """Deletes the checkpoints of a run whose results are written."""
    Checkpoints(folder).delete()
