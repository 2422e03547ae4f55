"""Which figures the report on preference data has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glm_jax.data.plots import Panel, Series, intervals
from glm_jax.train.reports.data_schema import DataReport, Described, Longer

WHEN = {"before": ("as it is", "score"), "after": ("after balancing", "ppo")}


def figures(report: DataReport) -> dict[str, list[Panel]]:
    """Panels by section; a section without numbers is an empty list."""
    return {"bias": shares(report, report.source.unit)}


def shares(found: Described, unit: str) -> list[Panel]:
    """How often longer is better, by group and by difference of length."""
    groups = list(found.sizes)
    by_group = {when: [bias.get(group) for group in groups] for when, bias in found.bias.items()}
    by_gap = {when: [getattr(gap, when) for gap in found.gaps] for when in WHEN}
    names = [f"{gap.low:,} to {gap.high - 1:,}" for gap in found.gaps]
    panels = [
        _shares("Longer is better, by group", groups, by_group),
        _shares(f"By difference in {unit}", names, by_gap),
    ]
    return [panel for panel in panels if panel]


def _shares(
    title: str, names: Sequence[str], found: Mapping[str, Sequence[Longer | None]]
) -> Panel | None:
    def points(share: float | None) -> float | None:
        return None if share is None else 100 * share

    series = [
        Series(
            label=WHEN[when][0],
            colour=WHEN[when][1],
            hollow=when == "before",
            x=[points(row and row.share) for row in rows],
            y=[0] * len(rows),
            low=[points(row and row.ci95[0]) for row in rows],
            high=[points(row and row.ci95[1]) for row in rows],
        )
        for when, rows in found.items()
    ]
    return intervals(title, names, series, x="% of pairs of unequal length", zero=50)
