"""Which plots the administrator's page has: from the figures of a collection to panels."""

from collections.abc import Mapping, Sequence
from typing import Any

from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.plots import Panel, Series, curves, histograms, intervals

ROWS = 16  # people in a plot: those with most judgements; the table has all


def panels(
    found: Mapping[str, Any], config: CollectionConfig, t: Mapping[str, str]
) -> dict[str, list[Panel]]:
    """Panels by section; `t` has their titles and the names of their axes."""
    people = sorted(
        (row for row in found["annotators"] if row["judged"]), key=lambda row: -row["judged"]
    )[:ROWS]
    names = [row["name"] for row in people]

    def by_person(measure: str, zero: float | None) -> Panel | None:
        return _shares(t[measure], names, [row[measure] for row in people], t["percent"], zero)

    buckets = found["buckets"]
    gaps = [_range(bucket["low"], bucket["high"]) for bucket in buckets]
    categories = found["cycles"]["categories"]
    sections = {
        "work": [_days(found, t), _histogram(found, t), _seconds(names, people, t)],
        "agreement": [
            _kappas(names, found["agreement"]["kappas"], t),
            by_person("repeats", None),
            by_person("gold", 100 * config.pass_mark),
        ],
        "bias": [
            by_person("left", 50),
            by_person("longer", 50),
            _shares(t["gaps"], gaps, buckets, t["percent"], 50),
        ],
        "verdicts": [
            by_person("ties", None),
            by_person("unable", None),
            _shares(t["cycles"], list(categories), list(categories.values()), t["percent"], None),
        ],
    }
    return {name: [panel for panel in panels if panel] for name, panels in sections.items()}


def _days(found: Mapping[str, Any], t: Mapping[str, str]) -> Panel | None:
    days = found["throughput"]["days"]
    if not found["throughput"]["all"]:
        return None
    ago = [float(i - len(days) + 1) for i in range(len(days))]
    judged = [float(day["judgements"]) for day in days]
    series = Series(label=t["judgements"], colour="ppo", x=ago, y=judged)
    return curves(t["days"], [series], x=t["days_ago"], marks=True, floor=0)


def _histogram(found: Mapping[str, Any], t: Mapping[str, str]) -> Panel | None:
    bars = found["seconds"]["histogram"]
    if bars is None:
        return None
    counts = list(map(float, bars["counts"]))
    series = Series(label=t["judgements"], colour="ppo", x=bars["edges"], y=counts)
    return histograms(t["time"], [series], x=t["seconds_share"])


def _seconds(
    names: Sequence[str], people: Sequence[Mapping[str, Any]], t: Mapping[str, str]
) -> Panel | None:
    """Of those whose time was measured."""
    known = [(name, row["seconds"]) for name, row in zip(names, people, strict=True)]
    known = [(name, seconds["quartiles"]) for name, seconds in known if seconds["n"]]
    low, middle, high = ([quartiles[i] for _, quartiles in known] for i in range(3))
    return _forest(
        t["seconds"], [name for name, _ in known], middle, low, high, t["seconds_axis"], None
    )


def _kappas(
    names: Sequence[str], kappas: Sequence[Mapping[str, Any]], t: Mapping[str, str]
) -> Panel | None:
    """Of each person the mean of the kappas with others, and the lowest and highest of them."""
    rows = []
    for name in names:
        own = [k["kappa"] for k in kappas if name in k["annotators"] and k["kappa"] is not None]
        if own:
            rows.append((name, sum(own) / len(own), min(own), max(own)))
    if not rows:
        return None
    shown, mean, low, high = zip(*rows, strict=True)
    return _forest(t["kappas"], shown, mean, low, high, t["kappa_axis"], 0)


def _shares(
    title: str,
    names: Sequence[str],
    shares: Sequence[Mapping[str, Any]],
    axis: str,
    zero: float | None,
) -> Panel | None:
    """What is known of these, in percent, with intervals."""
    known = [(name, row) for name, row in zip(names, shares, strict=True) if row["n"]]
    middle = [100 * row["share"] for _, row in known]
    low, high = ([100 * row["ci95"][end] for _, row in known] for end in (0, 1))
    return _forest(title, [name for name, _ in known], middle, low, high, axis, zero)


def _forest(
    title: str,
    names: Sequence[str],
    middle: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    axis: str,
    zero: float | None,
) -> Panel | None:
    y = [0.0] * len(names)
    series = Series(label=title, colour="ppo", x=middle, y=y, low=low, high=high)
    return intervals(title, names, [series], x=axis, zero=zero)


def _range(low: int, high: int) -> str:
    return f"{low:,}–{high:,}" if high > low else f"{low:,}"
