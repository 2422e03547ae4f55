"""The processes of a run, one a host of a pod: they run the same program, and the first writes.

Each reads the same files and makes the same batches; arrays that span the mesh are the programs'
alone. What one process sees and another might not is decided by the first.
"""

import os
import pickle
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from glm_jax.errors import InputError

T = TypeVar("T")

LOST = 20  # seconds without a sign of life until the others end too
_ADDRESS = "JAX_COORDINATOR_ADDRESS"
_NUMBERS = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_TASKS = "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"


def join() -> None:
    """Joins the run's other processes, if there are any; before JAX is asked for a device.

    There are where JAX_COORDINATOR_ADDRESS (with JAX_NUM_PROCESSES and JAX_PROCESS_ID) names them,
    among several tasks of Slurm or Open MPI, and on a TPU host, where JAX finds them by itself.
    Raises InputError when the variables will not do.
    """
    if jax.distributed.is_initialized():
        return
    named = _ADDRESS in os.environ
    tasks = max(int(os.environ.get(name, 1)) for name in _TASKS)
    on_tpu = (jax.config.jax_platforms or "").startswith("tpu")  # as JAX itself has set it there
    if not (named or tasks > 1 or on_tpu):
        return
    number, place = (_number(name) if named else None for name in _NUMBERS)
    try:
        jax.distributed.initialize(
            num_processes=number,
            process_id=place,
            heartbeat_timeout_seconds=LOST,
            shutdown_timeout_seconds=3 * LOST,
        )
    except ValueError as error:
        if named:
            raise InputError(f"{_ADDRESS} is set, but {', '.join(_NUMBERS)}: {error}") from None
        # JAX has found no others: a single host


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is not None and not text.isdecimal():
        raise InputError(f"{name} must be a number, got {text!r}")
    return None if text is None else int(text)


def several() -> bool:
    """Whether the run has other processes than this one."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def leads() -> bool:
    """Whether this process is the one that writes and tells."""
    return not several() or jax.process_index() == 0


def decided(function: Callable[[], T]) -> T:
    """What the function returns or raises in the first process, where alone it is called.

    The others wait for it. All processes must come here in the same order.
    """
    if not several():
        return function()
    outcome: tuple[T | None, Exception | None] = None, None
    if leads():
        try:
            outcome = function(), None
        except (InputError, OSError) as error:
            outcome = None, error
    result, error = pickle.loads(_told(pickle.dumps(outcome)))
    if error is not None:
        raise error
    return result


def together() -> None:
    """Waits until all processes have come here."""
    decided(lambda: None)


def _told(data: bytes) -> bytes:
    """The first process's bytes, in all."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = -(-length // 1024) * 1024  # so that few sizes are compiled
    buffer = np.zeros(padded, np.uint8)
    if leads():
        buffer[:length] = np.frombuffer(data, np.uint8)
    return multihost_utils.broadcast_one_to_all(buffer)[:length].tobytes()


def asked_to_end(step: int) -> bool:
    """Whether a process was sent SIGTERM: in all processes at the same step.

    Called at each step. A single process is ended by the signal itself.
    """
    return several() and multihost_utils.reached_preemption_sync_point(step)
