"""The figures of a collection as lines for a terminal."""

from collections.abc import Iterator
from typing import Any

SHARES = {
    "ties": "neither is better",
    "unable": "cannot judge, or unwilling",
    "gold": "gold pairs judged rightly",
    "repeats": "repeats judged as before",
    "left": "the left one is better",
    "longer": "the longer one is better",
}
COLUMNS = ("judged", "seconds", *SHARES)


def told(figures: dict[str, Any]) -> str:
    """Lines of what `collection.figures.statistics` found; days and buckets are only in JSON."""
    return "\n".join((*_all(figures), "", *_annotators(figures["annotators"])))


def _all(figures: dict[str, Any]) -> Iterator[str]:
    progress, alpha = figures["progress"], figures["agreement"]["alpha"]
    yield _line(
        "pairs",
        f"{progress['done']:,} of {progress['pairs']:,} done; {progress['missing']:,} judgements "
        f"missing, {progress['open']:,} open; {progress['senior']:,} for a senior"
        + (f" ({progress['stuck']:,} that no senior here may decide)" if progress["stuck"] else ""),
    )
    throughput = figures["throughput"]
    yield _line(
        "judgements", f"{throughput['all']:,}; in the last hour {throughput['last_hour']:,}"
    )
    if quartiles := figures["seconds"]["quartiles"]:
        low, median, high = quartiles
        yield _line(
            "seconds a pair",
            f"{median:.1f} (quartiles {low:.1f}, {high:.1f}), {figures['seconds']['hours']:.1f} h",
        )
    value = "none yet" if alpha["value"] is None else f"{alpha['value']:.3f} {_range(alpha, 3)}"
    yield _line("Krippendorff's alpha", f"{value} of {alpha['pairs']:,} pairs that several judged")
    for kappa in figures["agreement"]["kappas"][:3]:
        if kappa["kappa"] is not None:
            names = " and ".join(kappa["annotators"])
            yield _line("lowest kappas", f"{kappa['kappa']:.3f} {names}, {kappa['pairs']:,} pairs")
    for name, text in SHARES.items():
        found = figures[name]
        if found["n"]:
            percent = {"ci95": [100 * end for end in found["ci95"]]}
            share = f"{100 * found['share']:.1f} % {_range(percent, 1)} of {found['n']:,}"
            yield _line(text, share)


def _annotators(annotators: list[dict[str, Any]]) -> Iterator[str]:
    width = max((len(each["name"]) for each in annotators), default=0) + 2
    yield " " * width + "".join(f"{name:>9}" for name in COLUMNS)
    for each in annotators:
        seconds = each["seconds"]["quartiles"]
        shares = (each[name]["share"] for name in SHARES)
        cells = [
            f"{each['judged']:,}",
            f"{seconds[1]:.1f}" if seconds else "",
            *("" if share is None else f"{100 * share:.1f} %" for share in shares),
        ]
        yield f"{each['name']:{width}}" + "".join(f"{cell:>9}" for cell in cells)


def _line(name: str, text: str) -> str:
    return f"{name:28}{text}"


def _range(found: dict[str, Any], digits: int) -> str:
    low, high = found["ci95"]
    return f"[{low:.{digits}f}, {high:.{digits}f}]"
