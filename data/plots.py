"""Plots of reports and pages: small SVG panels that take their colours from the style sheet.

A panel is drawn at the width of a phone and laid out by the page; its text stays text, its legend
is HTML, and the same numbers give the same bytes. Nothing in it needs a page that allows inline
styles.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH, HEIGHT = 340, 220  # CSS pixels; matplotlib's 72 units an inch are one each
POINTS = 240  # longer curves are averaged down to this many

# Stand-ins that the drawing uses for the variables of the style sheet, so that dark mode works.
COLOURS = {
    name: f"#0102{i:02x}"
    for i, name in enumerate(("ink", "muted", "rule", "sft", "dpo", "ppo", "score", "held", "true"))
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "glm-rlhf",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.edgecolor": COLOURS["rule"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "axes.labelcolor": COLOURS["muted"],
    "axes.formatter.useoffset": False,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve or one set of marks. `low` and `high` are the ends of its intervals."""

    label: str
    colour: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    hollow: bool = False

    def finite(self, values: Sequence[float | None]) -> np.ndarray:
        array = np.array([np.nan if v is None else v for v in values], float)
        return np.where(np.isfinite(array), array, np.nan)

    @property
    def drawable(self) -> bool:
        return bool(np.isfinite(self.finite(self.x) + self.finite(self.y)).any())


@dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    svg: str
    legend: list[Series]
    dots: bool = False  # the series are marks, not lines


def curves(
    title: str,
    series: Sequence[Series],
    *,
    x: str,
    marks: bool = False,
    at: float | None = None,
    named: Sequence[tuple[float, str]] = (),
    floor: float | None = None,
) -> Panel | None:
    """Lines over a common axis; `at` marks one place on it, `named` more, each with its name;
    `floor` holds the y axis up.
    """
    series = [s for s in series if s.drawable]
    if not series:
        return None
    figure, axes = _figure(HEIGHT)
    told = []
    for s in series:
        xs, ys = _thin(s.finite(s.x)), _thin(s.finite(s.y))
        fill = "none" if s.hollow else COLOURS[s.colour]
        kind = {"marker": "o", "markersize": 4, "markerfacecolor": fill} if marks else {}
        dash = (0, (4, 2)) if s.hollow else "-"
        axes.plot(xs, ys, color=COLOURS[s.colour], linewidth=1.7, linestyle=dash, **kind)
        if len(s.low):
            low, high = (_thin(s.finite(end)) for end in (s.low, s.high))
            axes.fill_between(xs, low, high, color=COLOURS[s.colour], alpha=0.15, linewidth=0)
        known = ys[np.isfinite(ys)]
        told.append(
            f"{s.label} goes from {known[0]:.3g} to {known[-1]:.3g}"
            f" (lowest {known.min():.3g}, highest {known.max():.3g})"
        )
    if at is not None:
        axes.axvline(at, color=COLOURS["muted"], linewidth=1, linestyle=(0, (1, 2)))
    for place, name in named:
        axes.axvline(place, color=COLOURS["ink"], linewidth=1, linestyle=(0, (4, 3)))
        axes.text(
            place, 0.98, name, transform=axes.get_xaxis_transform(), rotation=90, fontsize=8,
            color=COLOURS["ink"], horizontalalignment="right", verticalalignment="top",
        )  # fmt: skip
        told.append(f"{name} at {place:g}")
    if floor is not None:
        axes.set_ylim(bottom=floor)
    axes.set_xlabel(x)
    return Panel(title=title, legend=series, svg=_svg(figure, title, "; ".join(told)))


def intervals(
    title: str,
    rows: Sequence[str],
    series: Sequence[Series],
    *,
    x: str,
    zero: float | None = 0.0,
) -> Panel | None:
    """A forest plot: row by row, marks with their intervals; `zero` is where nothing differs."""
    series = [s for s in series if s.drawable]
    if not series or not rows:
        return None
    figure, axes = _figure(64 + len(rows) * (10 + 10 * len(series)))
    places = np.arange(len(rows), dtype=float)
    for i, s in enumerate(series):
        value, low, high = s.finite(s.x), s.finite(s.low), s.finite(s.high)
        y = places + 0.26 * (i - (len(series) - 1) / 2)
        colour = COLOURS[s.colour]
        fill = "none" if s.hollow else colour
        axes.hlines(y, low, high, color=colour, linewidth=1.7)
        axes.plot(value, y, "o", color=colour, markersize=5.5, markerfacecolor=fill)
    if zero is not None:
        axes.axvline(zero, color=COLOURS["muted"], linewidth=1)
    axes.set_yticks(places, [_short(row) for row in rows], color=COLOURS["ink"])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.05)
    axes.set_xlabel(x)
    told = "; ".join(
        f"{row}: " + ", ".join(f"{s.label} {s.x[i]:.3g}" for s in series if s.x[i] is not None)
        for i, row in enumerate(rows)
    )
    return Panel(title=title, legend=series, svg=_svg(figure, title, told), dots=True)


def histograms(title: str, series: Sequence[Series], *, x: str) -> Panel | None:
    """Outlines of histograms: x holds the edges, y the counts, drawn as shares."""
    series = [s for s in series if s.y and len(s.x) == len(s.y) + 1 and sum(s.y) > 0]
    if not series:
        return None
    figure, axes = _figure(HEIGHT)
    for s in series:
        counts = s.finite(s.y)
        colour = COLOURS[s.colour]
        shares = 100 * counts / counts.sum()
        axes.stairs(shares, s.finite(s.x), color=colour, linewidth=1.7)
    axes.set_xlabel(x)
    peaks = [f"{s.label} is most often near {s.x[int(np.argmax(s.y))]:.3g}" for s in series]
    return Panel(title=title, legend=series, svg=_svg(figure, title, "; ".join(peaks)))


def _figure(height: float) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        axes = figure.add_subplot()
        axes.locator_params(axis="x", nbins=6)
        axes.locator_params(axis="y", nbins=5)
        return figure, axes


def _thin(values: np.ndarray) -> np.ndarray:
    """Means of at most `POINTS` equal stretches, so that a long run does not make a large page."""
    stride = -(-len(values) // POINTS)
    if stride <= 1:
        return values
    return np.array([values[i : i + stride].mean() for i in range(0, len(values), stride)])


def _short(label: str) -> str:
    """Both ends: names of data sets begin alike and end apart."""
    return label if len(label) <= 18 else f"{label[:9]}…{label[-8:]}"


def _svg(figure: Figure, title: str, description: str) -> str:
    """The figure as an element of an HTML page: no prologue, no identifiers that could collide."""
    text = io.StringIO()
    salt = {**STYLE, "svg.hashsalt": title + description}
    with matplotlib.rc_context(salt), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(
            text,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Type": None, "Format": None},
        )
    prologue = r"^.*?<svg[^>]*>|<metadata>.*?</metadata>|<style.*?</style>"
    body = re.sub(prologue, "", text.getvalue(), flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    body = body.replace("font-family: 'DejaVu Sans'; ", "")
    body = re.sub(r'(<[^<>]*) style="([^"]*)"', _as_attributes, body)
    for name, stand_in in COLOURS.items():
        body = body.replace(stand_in, f"var(--{name})")
    width, height = (72 * size for size in figure.get_size_inches())
    told = html.escape(f"{title}. {description}")
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img"><title>{told}</title>{body}'


def _as_attributes(element: re.Match[str]) -> str:
    """An element's style as presentation attributes, which a strict content policy lets pass."""
    said = (part.split(": ", 1) for part in element[2].split("; "))
    return element[1] + "".join(f' {name}="{value}"' for name, value in said)
