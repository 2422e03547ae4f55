"""Whether a run fits a slice, and what it costs there: by compiling it, without the hardware.

What is compiled here has never run on such a slice; step times are estimates from published rates.
"""

import re
import time
from typing import Any

import jax
from flax import nnx

from glm_jax.errors import InputError
from glm_jax.mesh import check_rows, make_mesh, on_mesh
from glm_jax.train.plan import slices
from glm_jax.train.plan.flops import flops
from glm_jax.train.plan.hlo import Collective, collectives
from glm_jax.train.plan.program import Config, Program, program
from glm_jax.train.plan.slices import Slice

GIB = 2**30
LABEL = "compiled for this slice, never run on one"


def plan(config: Config, topology: str) -> dict[str, Any]:
    """The plan of a run on a slice, `v5p:4x4x4` or `v5p-128`, as one JSON object.

    `fits`, `hbm_used_bytes`, `hbm_available_bytes` a chip, `bytes` a chip by kind, `collectives`
    inside and outside of decoding, `flops` of all chips, `compile_seconds`, and `estimate`.

    Raises InputError for a topology, mesh or batch that will not do, before anything is compiled.
    """
    of = slices.parse(topology)
    planned = program(config)
    if config.mesh.devices > 1:
        check_rows(config.mesh, planned.rows)
    devices = slices.devices(of, config.mesh.slices)
    mesh = make_mesh(config.mesh, planned.models, devices)
    available = int(of.chip.hbm * GIB)
    with on_mesh(mesh):
        traced, kinds = planned.trace(mesh)
        declared = {kind: bytes_a_chip(tree) for kind, tree in kinds.items()}
        found: dict[str, Any] = {
            "topology": of.name, "chips": len(devices), "mesh": str(config.mesh), "label": LABEL,
            "hbm_available_bytes": available, "flops": flops(traced.jaxpr, planned.answer),
        }  # fmt: skip
        begun = time.perf_counter()
        lowered = traced.lower()
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            found["compile_seconds"] = time.perf_counter() - begun
            return found | _too_large(str(error), available, declared)
    found["compile_seconds"] = time.perf_counter() - begun
    memory = compiled.memory_analysis()
    arguments, temporaries = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    used = arguments + temporaries + new + memory.generated_code_size_in_bytes
    other = arguments - sum(declared.values())
    sent = collectives(compiled.as_text(), planned.answer)
    return found | {
        "fits": used <= available,
        "hbm_used_bytes": used,
        "bytes": declared | {"inputs": max(other, 0), "outputs": new, "temporaries": temporaries},
        "largest": largest(kinds),
        "collectives": _summary(sent),
        "estimate": _estimate(of, found["flops"], len(devices), sent, planned),
    }


def bytes_a_chip(tree: Any) -> int:
    """Bytes of a chip's parts of all arrays."""
    return sum(_held(x) for x in jax.tree.leaves(tree))


def largest(kinds: dict[str, Any], number: int = 5) -> list[dict[str, Any]]:
    """The largest arrays on a chip: name, shape of the whole, bytes a chip."""
    rows = []
    for kind, tree in kinds.items():
        for path, leaf in jax.tree.leaves_with_path(
            tree, is_leaf=lambda x: isinstance(x, nnx.Variable)
        ):
            for x in jax.tree.leaves(leaf):
                name = f"{kind}{jax.tree_util.keystr(path)}"
                rows.append({"name": name, "shape": list(x.shape), "bytes": _held(x)})
    return sorted(rows, key=lambda row: -row["bytes"])[:number]


def _held(x: jax.ShapeDtypeStruct) -> int:
    size = x.dtype.itemsize
    for n in x.sharding.shard_shape(x.shape):
        size *= n
    return size


def _too_large(message: str, available: int, declared: dict[str, int]) -> dict[str, Any]:
    """What is known of a program that the compiler refuses since it does not fit."""
    if "RESOURCE_EXHAUSTED" not in message or "vmem" in message:
        raise InputError(f"the TPU compiler failed: {message.splitlines()[0]}")
    told = re.search(r"[Uu]sed ([\d.]+)([MGT]) of", message) or re.search(
        r"\(([\d.]+)([MGT])\) exceeds", message
    )
    scale = {"M": 2**20, "G": GIB, "T": 2**40}
    used = int(float(told[1]) * scale[told[2]]) if told else None
    return {
        "fits": False, "hbm_used_bytes": used, "bytes": declared,
        "compiler": message.splitlines()[0],
        "would_help": "more chips along fsdp, fewer update_rows, scoring_rows or log_prob_chunk, "
                      "remat: full",
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


def _estimate(
    of: Slice, operations: float, chips: int, sent: list[Collective], planned: Program
) -> dict[str, float]:
    """Seconds of a step at published rates, nothing at the same time as anything else: products,
    what decoding reads, the links between chips."""
    chip = of.chip
    products = operations / chips / chip.flops
    reads = planned.answer * planned.token_bytes / chip.bandwidth
    links = sum(one.bytes for one in sent) / chip.links
    seconds = products + reads + links
    return {
        "step_seconds": seconds,
        "products_seconds": products,
        "reads_seconds": reads,
        "links_seconds": links,
        "utilisation": products / seconds if seconds else 0.0,
        "lost_to_a_preemption_seconds": planned.every * seconds,
    }
