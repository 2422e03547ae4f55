"""Work on the parts of a file, in processes of their own where there are several."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")


def in_order(function: Callable[..., T], tasks: Sequence[tuple[Any, ...]]) -> Iterator[T]:
    """`function(*task)` for every task, in order, by as many processes as there are cores.

    No more than two results a process wait to be taken, so that little memory is held. The
    processes are started afresh: a script that calls this at its top level needs the usual
    `if __name__ == "__main__":`. One task is done right here.
    """
    processes = min(len(os.sched_getaffinity(0)), len(tasks))
    if processes < 2:
        yield from (function(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads half
    with ProcessPoolExecutor(processes, context, initializer=_leave_interrupts) as pool:
        left = iter(tasks)
        waiting: deque[Future[T]] = deque(
            pool.submit(function, *task) for task in islice(left, 2 * processes)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, *task) for task in islice(left, 1))
                yield result
                del result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts() -> None:
    """An interrupt is for the process that waits for the others: it ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
