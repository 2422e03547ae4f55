"""Progress bars on a terminal; a line at the start and the end of a stage elsewhere."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
console = Console()
_SHOWN = {"loss": "loss", "accuracy": "accuracy", "objective/scores": "score", "objective/kl": "KL"}


class Bar:
    """One stage's bar."""

    def __init__(self, bars: Progress, label: str, total: int | None, done: int):
        self._bars = bars
        self._task = bars.add_task(label, total=total, completed=done, figures="")

    def update(
        self, done: int, metrics: Mapping[str, float] | None = None, total: int | None = None
    ) -> None:
        shown = [f"{_SHOWN[k]} {v:.3f}" for k, v in (metrics or {}).items() if k in _SHOWN]
        self._bars.update(self._task, completed=done, total=total, figures="  ".join(shown))


@contextmanager
def progress(
    label: str, total: int | None, done: int = 0, *, told: bool = True, on: Console = console
) -> Iterator[Bar]:
    """Shows how far `label` is, how long it will take yet, and its newest figures.

    `told`: lines at its start and end, which stay.
    """
    resumed = f" (from {done} of {total})" if done else ""
    if told and not on.is_terminal:
        on.print(f"{label}: {total}{resumed}", highlight=False)
    start = time.monotonic()
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(),
        TimeRemainingColumn(compact=True), TextColumn("{task.fields[figures]}", style="dim"),
    )  # fmt: skip
    with Progress(*columns, console=on, transient=True) as bars:
        yield Bar(bars, label, total, done)
    if told:
        on.print(f"{label}{resumed}: {time.monotonic() - start:.1f} s", highlight=False)


def shown(batches: Iterable[list[T]], label: str, total: int) -> Iterator[T]:
    """The items of the batches, one by one, under a bar."""
    done = 0
    with progress(label, total) as bar:
        for batch in batches:
            yield from batch
            done += len(batch)
            bar.update(done)
