"""A plan, or a search, in words."""

from typing import Any

from glm_jax.train.plan.slices import GIB


def told(found: dict[str, Any]) -> str:
    """The plan as text: fit, bytes a chip, collectives, the estimate."""
    used, available = found["hbm_used_bytes"], found["hbm_available_bytes"] / GIB
    lines = [f"{_where(found)}, {found['mesh']} ({found['label']})"]
    if used is None:
        lines.append(f"does not fit: {found['compiler']}")
    else:
        spare = available - used / GIB
        verdict = f"fits, {spare:.2f} GiB to spare" if found["fits"] else f"lacks {-spare:.2f} GiB"
        lines.append(f"{verdict}: {used / GIB:.2f} of {available:.2f} GiB a chip")
    lines += [f"  {kind:26}{size / GIB:9.2f} GiB" for kind, size in found["bytes"].items()]
    for lever in found.get("would_help", []):
        saved, left = lever["saves_bytes"] / GIB, lever["hbm_used_bytes"] / GIB
        more = f" on {lever['chips']} chips" if lever["chips"] != found["chips"] else ""
        lines.append(
            f"would help: {lever['set']}{more}: {saved:.2f} GiB less, {left:.2f} by estimate"
        )
    for row in found["largest"]:
        shape = "x".join(map(str, row["shape"]))
        lines.append(f"  {row['bytes'] / GIB:9.2f} GiB  {row['name']} [{shape}]")
    by_phase = found["estimated"]
    for name, kinds in by_phase["phases"].items():
        parts = ", ".join(
            f"{kind.replace('_', ' ')} {size / GIB:.2f}" for kind, size in kinds.items() if size
        )
        lines.append(f"{name}, estimated in GiB: {parts}")
    for place, kinds in (found["collectives"] or {}).items():
        for kind, of in kinds.items():
            size = of["bytes"] / 1e9
            lines.append(f"{place}: {of['times']:,} x {kind}, {size:,.2f} GB a chip and step")
    lines.append(f"{found['flops']:.3g} operations a step, all chips together")
    if "estimate" in found:
        of = found["estimate"]
        rates = f"the published rates of an {of['rates']}" if "rates" in of else "published rates"
        lines.append(
            f"estimate from {rates}: {of['step_seconds']:.1f} s a step, "
            f"{of['utilisation']:.0%} of it products; a preemption loses up to "
            f"{of['lost_to_a_preemption_seconds'] / 60:.0f} min"
        )
    if found["compile_seconds"] is not None:
        lines.append(f"compiled in {found['compile_seconds']:.0f} s")
    return "\n".join(lines)


def told_search(found: dict[str, Any]) -> str:
    """The candidates as a table, best first."""
    available = found["hbm_available_bytes"] / GIB
    lines = [
        f"{_where(found)}, {available:.2f} GiB each ({found['label']})",
        f"{'':11}{'GiB a chip':>10} {'s a step':>9}  set",
    ]
    for row in found["candidates"]:
        verdict = "fits" if row["fits"] else "too large"
        used = "" if row["hbm_used_bytes"] is None else f"{row['hbm_used_bytes'] / GIB:.2f}"
        mark = "*" if row["compiled"] else " "
        lines.append(f"{verdict:10}{mark}{used:>10} {row['step_seconds']:9.1f}  {row['set']}")
    if any(row["compiled"] for row in found["candidates"]):
        lines.append("* by the compiler; the others are estimates")
    return "\n".join(lines)


def _where(found: dict[str, Any]) -> str:
    kind = "chips" if "topology" in found else "GPUs"
    return f"{found.get('topology') or found['device']}: {found['chips']} {kind}"
