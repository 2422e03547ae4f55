"""Work on the parts of a file, in processes of their own where there are several."""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, TypeVar

T = TypeVar("T")

# Plain processes, not `multiprocessing`: a fork copies JAX's threads half, and what "spawn" does
# instead, running the caller's script again, surprises scripts without a guard.
_START = [sys.executable, "-P", "-c", "from glm_jax.data.parallel import _serve; _serve()"]


def in_order(function: Callable[..., T], tasks: Iterable[tuple[Any, ...]]) -> Iterator[T]:
    """`function(*task)` for every task, in order, by as many processes as there are cores.

    A task is taken when a process is free for it, and a process keeps its result until that is
    taken, so that no more than one of each is held a process. Function, tasks and results must be
    picklable. A single task is done right here.
    """
    tasks = iter(tasks)
    first = list(islice(tasks, len(os.sched_getaffinity(0))))
    if len(first) < 2:
        yield from (function(*task) for task in chain(first, tasks))
        return
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        # out of reach of the terminal's interrupt: they end when their input does
        subprocess.Popen(
            _START, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
            start_new_session=True,
        )
        for _ in first
    ]  # fmt: skip
    try:
        busy = deque(processes)
        for process, task in zip(processes, first, strict=True):
            _send(process, function, task)
        while busy:
            process = busy.popleft()
            try:
                result, error = pickle.load(process.stdout)
            except EOFError:
                raise RuntimeError(
                    f"a process ended with status {process.wait()}; is there enough memory?"
                ) from None
            if error is not None:
                raise error
            for task in islice(tasks, 1):
                _send(process, function, task)
                busy.append(process)
            yield result
            del result
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _send(process: subprocess.Popen, *work: Any) -> None:
    pickle.dump(work, process.stdin)
    process.stdin.flush()


def _serve() -> None:
    """What each process does: takes work from its input, gives results to its output."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed goes elsewhere
    while True:
        try:
            function, task = pickle.load(sys.stdin.buffer)
        except (
            EOFError,
            pickle.UnpicklingError,
        ):  # the parent is gone, in the middle of a task too
            return
        try:
            answer = function(*task), None
        except Exception as error:
            answer = None, error
        try:
            pickle.dump(answer, results)
            results.flush()
        except BrokenPipeError:  # nobody waits for it: the parent was killed
            os._exit(1)  # before the interpreter, which closes the file, says so
