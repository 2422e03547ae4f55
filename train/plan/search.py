"""Which mesh a run would do best on, and with how many rows at a time.

All are tried on the estimate, in milliseconds each; for a slice the best few are then compiled.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.console import Console

from glm_jax.attention import check_platform
from glm_jax.errors import InputError
from glm_jax.mesh import MeshConfig, check, check_rows
from glm_jax.train.plan import gpus, slices
from glm_jax.train.plan.estimate import Estimate, estimate
from glm_jax.train.plan.flops import flops
from glm_jax.train.plan.levers import Values, changed, written
from glm_jax.train.plan.plan import COMPILED, ESTIMATED, plan
from glm_jax.train.plan.program import (
    Config,
    countable,
    memory_of,
    on_accelerator,
    program,
    row_counts,
)
from glm_jax.train.plan.seconds import decoding, seconds, training
from glm_jax.train.plan.sizes import sizes
from glm_jax.train.plan.slices import Chip
from glm_jax.train.ppo.config import PPOConfig
from glm_jax.train.progress import progress

MARGIN = 1.15  # what the estimate may be off by


class Candidate(NamedTuple):
    """A mesh, with the rows at a time that suit it best."""

    values: Values
    config: Config
    estimate: Estimate
    seconds: float

    def place(self, available: int) -> tuple[int, float, int]:
        """The lower the better: surely fits, fits, may fit, does not; then the time of a step."""
        used = self.estimate.used
        fit = sum(used > limit for limit in (available / MARGIN, available, available * MARGIN))
        return fit, self.seconds if fit < 3 else 0.0, used


def search(config: Config, topology: str, best: int = 3) -> dict[str, Any]:
    """Meshes for a slice, best first, as one JSON object with a list of `candidates`.

    All are estimated. The `best` that may fit are then compiled and come first: their `fits`,
    `hbm_used_bytes` and `step_seconds` are the compiler's. Raises InputError when no mesh will do.
    """
    of = slices.parse(topology)
    chips = math.prod(of.shape) * config.mesh.slices
    found = candidates(on_accelerator(config), chips, of.chip)
    rows = [_row(one, of.chip) for one in found]
    number = min(best, sum(one.estimate.used <= MARGIN * of.chip.available for one in found))
    label = f"compiling for {of.name}"
    with progress(label, number, on=Console(stderr=True)) as bar:
        for i in range(number):
            made = plan(found[i].config, topology)
            rows[i] |= {"compiled": True, "fits": made["fits"]}
            rows[i] |= {"hbm_used_bytes": made["hbm_used_bytes"]}
            if made["fits"]:
                rows[i] |= {"step_seconds": made["estimate"]["step_seconds"]}
            bar.update(i + 1)
    tried = sorted(rows[:number], key=lambda row: (not row["fits"], row["step_seconds"]))
    return {
        "topology": of.name, "chips": chips, "label": f"{ESTIMATED}; the best {COMPILED}",
        "hbm_available_bytes": of.chip.available, "fits": any(row["fits"] for row in tried),
        "candidates": tried + rows[number:],
    }  # fmt: skip


def search_device(config: Config, device: str) -> dict[str, Any]:
    """The same for GPUs, `8x80GB`, by the estimate alone."""
    of = gpus.parse(device)
    check_platform(memory_of(config).attention, "gpu")
    rows = [_row(one, of.chip) for one in candidates(on_accelerator(config), of.number, of.chip)]
    return {
        "device": of.name, "chips": of.number, "label": ESTIMATED,
        "hbm_available_bytes": of.chip.available, "fits": any(row["fits"] for row in rows),
        "candidates": rows,
    }  # fmt: skip


def candidates(config: Config, chips: int, chip: Chip) -> list[Candidate]:
    """All meshes of so many chips that divide models and rows, best first."""
    planned = program(config)
    operations = flops(countable(config), planned.rounds)
    found = []
    for mesh in meshes(chips, config.mesh.slices, any(m.n_routed_experts for m in planned.models)):
        try:
            check(mesh, planned.models, chips)
        except InputError:
            continue
        known, on_it = sizes(changed(config, {"mesh": mesh}), planned), []
        axes = {f"mesh.{name}": getattr(mesh, name) for name in ("data", "fsdp", "tensor")}
        if mesh.expert > 1 or config.mesh.expert > 1:
            axes["mesh.expert"] = mesh.expert
        for values in rows_at_a_time(config, mesh.rows):
            try:
                other = changed(config, {"mesh": mesh} | values)
                check_rows(mesh, row_counts(other))
            except InputError:
                continue
            traffic = decoding(other, known) + training(other, known)
            step = seconds(chip, operations, chips, traffic, planned.every)["step_seconds"]
            on_it.append(Candidate(axes | values, other, estimate(other, known), step))
        found += sorted(on_it, key=lambda one: one.place(chip.available))[:1]
    if not found:
        rows = ", ".join(f"{name} {number}" for name, number in planned.rows.items())
        raise InputError(
            f"search: no mesh of {chips} chips divides the model and the rows ({rows}); a power of "
            f"2 of chips, and batches that are multiples of it, would do"
        )
    return sorted(found, key=lambda one: one.place(chip.available))


def meshes(chips: int, slices: int, experts: bool) -> Iterator[MeshConfig]:
    """All of so many chips; `slices` of a pod are along data."""
    ways = [n for n in range(1, chips + 1) if chips % n == 0]
    for data in ways:
        for fsdp in ways:
            for expert in ways if experts else [1]:
                tensor, rest = divmod(chips, data * fsdp * expert)
                if not rest and data % slices == 0:
                    yield MeshConfig(
                        data=data, fsdp=fsdp, tensor=tensor, expert=expert, slices=slices
                    )


def rows_at_a_time(config: Config, multiple: int) -> Iterator[Values]:
    """Rows of a backward pass and, with PPO, of scoring: whatever cuts up a batch evenly."""
    part = memory_of(config)
    if not isinstance(config, PPOConfig):
        whole = config.batch_size
        yield from (
            {"memory.rows": None if part.layerwise else n}
            for n in ([whole] if part.layerwise else _divisors(whole, multiple))
        )
        return
    minibatch = part.rows // part.minibatches
    for scored in _divisors(part.rows, multiple):
        for n in [None] if part.layerwise else _divisors(minibatch, multiple):
            yield {"ppo.scoring_rows": scored, "ppo.update_rows": n}


def _divisors(whole: int, multiple: int) -> list[int]:
    return [n for n in range(multiple, whole + 1, multiple) if whole % n == 0]


def _row(one: Candidate, chip: Chip) -> dict[str, Any]:
    used = one.estimate.used
    return {
        "set": written(one.values), "mesh": str(one.config.mesh), "compiled": False,
        "fits": used <= chip.available, "hbm_used_bytes": used, "step_seconds": one.seconds,
        "estimated": {
            "hbm_used_bytes": used, "step_seconds": one.seconds, "peak": one.estimate.peak
        },
    }  # fmt: skip
