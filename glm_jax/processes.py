"""The processes of a run, one a host of a pod: they run the same program, and the first writes.

Each reads the same files and makes the same batches; arrays that span the mesh are the programs'
alone. What one process sees and another might not is decided by the first.
"""

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from glm_jax.errors import InputError

T = TypeVar("T")

LOST = 20  # seconds without a sign of life until the others end too
_ADDRESS = "JAX_COORDINATOR_ADDRESS"
_NUMBERS = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join() -> None:
    """Joins the run's other processes, if there are any; before JAX is asked for a device.

    There are where JAX_COORDINATOR_ADDRESS (with JAX_NUM_PROCESSES and JAX_PROCESS_ID) names them,
    among several tasks of Slurm or Open MPI, and on a TPU host, where JAX finds them by itself.
    Raises InputError when these variables will not do.
    """
    if jax.distributed.is_initialized():
        return
    named = _ADDRESS in os.environ
    ranks, tasks = (_number(name) or 1 for name in ("OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS"))
    on_tpu = (jax.config.jax_platforms or "").startswith("tpu")  # as JAX itself has set it there
    if not (named or ranks > 1 or tasks > 1 or on_tpu):
        return
    number, place = (_number(name) if named else None for name in _NUMBERS)
    try:
        jax.distributed.initialize(
            num_processes=number,
            process_id=place,
            heartbeat_timeout_seconds=LOST,
            shutdown_timeout_seconds=3 * LOST,
        )
    except (ValueError, IndexError) as error:
        if named or ranks > 1:
            told = f"{_ADDRESS}, {' and '.join(_NUMBERS)} must say who the run's processes are"
            raise InputError(f"{told}: {error}") from None
        # JAX has found no others: a single TPU host, or a job of Slurm's without srun


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
    """What the function returns, as JSON has it, or raises in the first process, where alone it is
    called.

    The others wait for it. All processes must come here in the same order. What is wrong with a
    file or its content is raised in all of them as an InputError.
    """
    if not several():
        return function()
    outcome: dict[str, Any] = {}
    if leads():
        try:
            outcome = {"result": function()}
        except (InputError, OSError) as error:
            outcome = {"error": str(error)}
    outcome = json.loads(_told(json.dumps(outcome).encode()))
    if "error" in outcome:
        raise InputError(outcome["error"])
    return outcome["result"]


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


def all_end() -> bool:
    """Whether the other processes end as well, now that this one does: waits for them a while."""
    if not several():
        return True
    from orbax.checkpoint.multihost import get_barrier_sync_fn  # heavy, and rarely needed

    try:
        get_barrier_sync_fn()(key="glm-rlhf ends", timeout_ms=LOST * 1000)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def asked_to_end(step: int) -> bool:
    """Whether a process was sent SIGTERM: in all processes at the same step.

    Called at each step. A single process is ended by the signal itself.
    """
    return several() and multihost_utils.reached_preemption_sync_point(step)
