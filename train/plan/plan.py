"""Whether a run fits, and what it costs: compiled for a TPU slice, or estimated for GPUs.

What is compiled here has never run on such a slice; step times are estimates from published rates.
"""

from typing import Any

from glm_jax.attention import check_platform
from glm_jax.errors import InputError
from glm_jax.mesh import check, check_rows, make_mesh
from glm_jax.train.plan import gpus, slices
from glm_jax.train.plan.compiled import compiled
from glm_jax.train.plan.estimate import Estimate, estimate
from glm_jax.train.plan.flops import flops
from glm_jax.train.plan.levers import would_help
from glm_jax.train.plan.program import Config, countable, memory_of, on_accelerator, program
from glm_jax.train.plan.seconds import Traffic, decoding, seconds, training
from glm_jax.train.plan.sizes import largest, sizes

COMPILED = "compiled for this slice, never run on one"
ESTIMATED = "estimated from declared arrays, not compiled"


def plan(config: Config, topology: str) -> dict[str, Any]:
    """The plan of a run on a slice, `v5p:4x4x4` or `v5p-128`, as one JSON object.

    `fits`, `hbm_used_bytes`, `hbm_available_bytes` a chip, `bytes` a chip by kind, and beside them
    what `estimated` says is in the temporaries; `collectives` inside and outside of decoding,
    `flops` of all chips, `compile_seconds`, and `estimate` of the seconds of a step; `would_help`
    where it does not fit.

    Raises InputError for a topology, mesh or batch that will not do, before anything is compiled.
    """
    of, config = slices.parse(topology), on_accelerator(config)
    check_platform(memory_of(config).attention, "tpu")
    planned = program(config)
    if config.mesh.devices > 1:
        check_rows(config.mesh, planned.rows)
    devices = slices.devices(of, config.mesh.slices)
    mesh, known = (
        make_mesh(config.mesh, planned.models, devices, planned.rows),
        sizes(config, planned),
    )
    found = {
        "topology": of.name, "chips": len(devices), "mesh": str(config.mesh), "label": COMPILED,
        "hbm_available_bytes": of.chip.available,
        "largest": largest(planned.declared, mesh),
        "estimated": _by_phase(estimate(config, known)),
    }  # fmt: skip
    found |= compiled(planned, mesh, known.declared, of.chip.available)
    if not found["fits"]:
        return found | {"would_help": would_help(config, planned)}
    sent = found["collectives"].values()
    links = sum(kind["bytes"] for place in sent for kind in place.values())
    reads = (decoding(config, known) + training(config, known)).reads
    return found | {
        "estimate": seconds(
            of.chip, found["flops"], len(devices), Traffic(reads, links), planned.every
        )
    }


def plan_device(config: Config, device: str) -> dict[str, Any]:
    """The same for GPUs, `80GB` or a host of them, `8x80GB`, without a compiler: estimated from the
    declared arrays, cache and largest live activations. What is sent is not told apart by kind.

    Raises InputError for a device, mesh or batch that will not do.
    """
    of, config = gpus.parse(device), on_accelerator(config)
    check_platform(memory_of(config).attention, "gpu")
    if config.mesh.slices > 1:
        raise InputError(f"mesh.slices ({config.mesh.slices}): they are of TPU pods; leave it out")
    planned = program(config)
    check(config.mesh, planned.models, of.number, planned.rows)
    check_rows(config.mesh, planned.rows)
    known = sizes(config, planned)
    by_hand, operations = estimate(config, known), flops(countable(config), planned.rounds)
    found = {
        "device": of.name, "chips": of.number, "mesh": str(config.mesh), "label": ESTIMATED,
        "hbm_available_bytes": of.chip.available,
        "largest": largest(planned.declared, known.abstract),
        "estimated": _by_phase(by_hand),
        "fits": by_hand.used <= of.chip.available,
        "hbm_used_bytes": by_hand.used,
        "bytes": by_hand.bytes,
        "flops": operations, "collectives": None, "compile_seconds": None,
    }  # fmt: skip
    if not found["fits"]:
        found["would_help"] = would_help(config, planned)
    traffic = decoding(config, known) + training(config, known)
    times = seconds(of.chip, operations, of.number, traffic, planned.every)
    return found | {"estimate": times | {"rates": gpus.RATES}}


def _by_phase(by_hand: Estimate) -> dict[str, Any]:
    """What temporaries are, by phase, which no compiler says."""
    phases = {
        name: {kind: round(size) for kind, size in phase._asdict().items()}
        for name, phase in by_hand.phases.items()
    }
    return {
        "label": ESTIMATED, "hbm_used_bytes": by_hand.used, "peak": by_hand.peak, "phases": phases
    }  # fmt: skip
