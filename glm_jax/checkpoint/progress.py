"""A bar for bytes, on a terminal and where it takes a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from glm_jax.processes import leads

LONG = 2**29


@contextmanager
def byte_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told of bytes as they pass; below half a gigabyte shows nothing."""
    columns = TextColumn(label), BarColumn(bar_width=30), DownloadColumn(), TransferSpeedColumn()
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=total < LONG or not leads()
    ) as bars:
        task = bars.add_task(label, total=total)
        yield lambda count: bars.advance(task, count)
