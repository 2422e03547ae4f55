"""A plan in words."""

from typing import Any

GIB = 2**30


def told(found: dict[str, Any]) -> str:
    """The plan as text: fit, bytes a chip, collectives, the estimate."""
    used, available = found["hbm_used_bytes"], found["hbm_available_bytes"] / GIB
    lines = [f"{found['topology']}: {found['chips']} chips, {found['mesh']} ({found['label']})"]
    if used is None:
        lines.append(f"does not fit: {found['compiler']}")
    else:
        spare = available - used / GIB
        verdict = f"fits, {spare:.2f} GiB to spare" if found["fits"] else f"lacks {-spare:.2f} GiB"
        lines.append(f"{verdict}: {used / GIB:.2f} of {available:.2f} GiB a chip")
    lines += [f"  {kind:14}{size / GIB:9.2f} GiB" for kind, size in found["bytes"].items()]
    if "would_help" in found:
        lines.append(f"would help: {found['would_help']}")
    for row in found.get("largest", []):
        shape = "x".join(map(str, row["shape"]))
        lines.append(f"  {row['bytes'] / GIB:9.2f} GiB  {row['name']} [{shape}]")
    for place, kinds in found.get("collectives", {}).items():
        for kind, of in kinds.items():
            size = of["bytes"] / 1e9
            lines.append(f"{place}: {of['times']:,} x {kind}, {size:,.2f} GB a chip and step")
    lines.append(f"{found['flops']:.3g} operations a step, all chips together")
    if "estimate" in found:
        of = found["estimate"]
        lines.append(
            f"estimate from published rates: {of['step_seconds']:.1f} s a step, "
            f"{of['utilisation']:.0%} of it products; a preemption loses up to "
            f"{of['lost_to_a_preemption_seconds'] / 60:.0f} min"
        )
    lines.append(f"compiled in {found['compile_seconds']:.0f} s")
    return "\n".join(lines)
