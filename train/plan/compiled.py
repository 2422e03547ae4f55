"""What the TPU compiler says of a run's program."""

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh

from glm_jax.errors import InputError
from glm_jax.mesh import on_mesh
from glm_jax.train.plan.flops import flops
from glm_jax.train.plan.hlo import Collective, collectives
from glm_jax.train.plan.program import Program
from glm_jax.train.plan.slices import GIB


def compiled(
    planned: Program, mesh: Mesh, declared: dict[str, int], available: int
) -> dict[str, Any]:
    """`fits`, `hbm_used_bytes`, `bytes` by kind, `collectives`, `flops` and `compile_seconds`.

    Of a program that does not fit, which the compiler refuses, `bytes` are those of the declared
    arrays, and `compiler` is what it said. Raises InputError when it fails otherwise.
    """
    with on_mesh(mesh):
        traced = planned.trace(mesh)
        found: dict[str, Any] = {"flops": flops(traced.jaxpr, planned.rounds)}
        begun = time.perf_counter()
        try:
            with _uncached():
                program = traced.lower().compile()
        except jax.errors.JaxRuntimeError as error:
            found["compile_seconds"] = time.perf_counter() - begun
            return found | _too_large(str(error), declared)
    found["compile_seconds"] = time.perf_counter() - begun
    memory = program.memory_analysis()
    # `temp_size_in_bytes` is more than is ever alive: by it, programs that it compiles do not fit
    used = memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes
    inputs = max(memory.argument_size_in_bytes - sum(declared.values()), 0)
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    known = declared | {
        "inputs": inputs, "outputs": outputs, "program": memory.generated_code_size_in_bytes
    }  # fmt: skip
    return found | {
        "fits": used <= available,
        "hbm_used_bytes": used,
        "bytes": known | {"temporaries": used - sum(known.values())},
        "collectives": _summary(collectives(program.as_text(), planned.rounds)),
    }


@contextmanager
def _uncached() -> Iterator[None]:
    """Without JAX's compilation cache: from it a program for chips that are not here cannot be
    read back, and reading it fails."""
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
    try:
        yield
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def _too_large(message: str, declared: dict[str, int]) -> dict[str, Any]:
    if "RESOURCE_EXHAUSTED" not in message or "vmem" in message:
        raise InputError(f"the TPU compiler failed: {message.splitlines()[0]}")
    told = re.search(r"[Uu]sed ([\d.]+)([MGT]) of", message) or re.search(
        r"\(([\d.]+)([MGT])\) exceeds", message
    )
    scale = {"M": 2**20, "G": GIB, "T": 2**40}
    used = int(float(told[1]) * scale[told[2]]) if told else None
    return {
        "fits": False, "hbm_used_bytes": used, "bytes": declared,
        "compiler": message.splitlines()[0], "collectives": None,
    }  # fmt: skip


def _summary(sent: list[Collective]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place, decoding in (("decoding", True), ("elsewhere", False)):
        kinds: dict[str, dict[str, int]] = {}
        for one in sent:
            if one.decoding == decoding:
                kind = kinds.setdefault(one.kind, {"times": 0, "bytes": 0, "largest": 0})
                kind["largest"] = max(kind["largest"], one.bytes // one.times)
                kind["times"] += one.times
                kind["bytes"] += one.bytes
        found[place] = kinds
    return found
