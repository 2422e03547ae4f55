"""report.html and the closing table of a run, both from the numbers in report.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from glm_jax.data.numbers import (
    THIN,
    bare,
    duration,
    number,
    percent,
    points,
    signed,
    span,
)
from glm_jax.train.reports import data_report, html_page, reward_report, scored_pairs
from glm_jax.train.reports.data_schema import DataReport
from glm_jax.train.reports.pipeline_figures import COMPARISONS, MODELS, MODES, figures, label_sets
from glm_jax.train.reports.pipeline_schema import Outcome, Report
from glm_jax.train.reports.reward_schema import RewardReport


def write(folder: str | Path) -> Path:
    """Read `report.json` in `folder` and write `report.html` beside it; returns the page's path.

    A reward model's run that has scores and no report yet gets both.
    Which report it is stands in the file: of a pipeline's run, of a reward model, or of data.
    Raises InputError when the file is missing, is not JSON, or does not hold the keys of
    docs/report.md.
    """
    if not (Path(folder) / "report.json").exists() and (Path(folder) / scored_pairs.FILE).exists():
        return reward_report.write(folder)
    values, where = html_page.read(folder), str(Path(folder) / "report.json")
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind == "data":
        text = data_report.page(html_page.parse(DataReport, values, where))
    elif kind == "reward":
        text = reward_report.page(html_page.parse(RewardReport, values, where))
    else:
        text = page(parse(values, where))
    return html_page.put_page(folder, text)


def parse(values: Any, where: str = "report.json") -> Report:
    """The numbers with their types; InputError names the first key that is not as documented."""
    return html_page.parse(Report, values, where)


def page(report: Report) -> str:
    """The HTML page of a pipeline's run."""
    return html_page.render(
        "pipeline_report.html.j2",
        report=report,
        figures=figures(report),
        summary=summary(report),
        labels=label_sets(report.reward),
        config=yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True),
        MODELS=MODELS,
        MODES=MODES,
        COMPARISONS=COMPARISONS,
    )


def summary(report: Report) -> list[str]:
    """What came out, in sentences made from the numbers."""
    said = []
    for comparison, modes in report.wins.items():
        first, second = (MODELS[m] for m in comparison.split("_vs_"))
        found = {mode: outcomes["all"] for mode, outcomes in modes.items() if "all" in outcomes}
        if comparison == "ppo_vs_dpo" or not found:
            continue
        judged = f"On {max(o.n for o in found.values()):,} held-out prompts, by {report.wins_by}, "
        said.append(("" if said else judged) + f"{first} {_clauses(found, second)}.")
    for labels, models in label_sets(report.reward).items():
        if labels in ("truth", "labels") and {"balanced", "unbalanced"} <= models.keys():
            with_, without = models["balanced"], models["unbalanced"]
            said.append(
                f"By {'the truth' if labels == 'truth' else 'its held-out labels'} the reward model"
                f" ranks {percent(with_.accuracy)} of pairs rightly with length balancing and"
                f" {percent(without.accuracy)} without; the best rule that sees length alone,"
                f" {percent(with_.length_only)}."
            )
    curve = [p for p in report.ppo.curve if p.utility is not None] if report.ppo else []
    if len(curve) > 1:
        best = max(curve, key=lambda p: p.utility)
        said.append(
            f"Over PPO the score went from {number(curve[0].score)} to {number(curve[-1].score)}"
            f" and the true utility from {number(curve[0].utility)} to {number(curve[-1].utility)},"
            f" highest at iteration {best.iteration}."
        )
    if report.claims:
        holds = sum(claim.holds for claim in report.claims)
        said.append(f"Of {len(report.claims)} claims, {holds} came out.")
    return said


def table(report: dict[str, Any], folder: str | Path | None = None) -> Group:
    """What the terminal shows at the end of a run: outcomes, reward models, claims, times."""
    numbers = parse(report)
    parts: list[Any] = []
    if numbers.wins:
        heads = ("win", "tie", "lose", "net", "95 % interval")
        wins = _table(f"Wins and losses, by {numbers.wins_by} (%)", ("", "decoding"), heads)
        for comparison, modes in numbers.wins.items():
            for mode, outcomes in modes.items():
                if o := outcomes.get("all"):
                    shares = (f"{100 * share:.1f}" for share in (o.win, o.tie, o.lose))
                    net = points(o.net), span(o.low, o.high)
                    wins.add_row(COMPARISONS[comparison], mode, *shares, *net, style=_hue(o))
        parts.append(wins)
    if numbers.reward:
        heads = ("accuracy", "95 % interval", "length", "corr.", "pairs")
        reward = _table("Reward models (%)", ("judged by", "model"), heads)
        for labels, models in label_sets(numbers.reward).items():
            for model, r in models.items():
                reward.add_row(
                    Text(labels), Text(model), bare(r.accuracy), span(*r.ci95, plus=False),
                    bare(r.length_only), signed(r.length_correlation), str(r.n),
                )  # fmt: skip
        parts.append(reward)
    if numbers.claims:
        claims = _table("Claims", ("", "", "evidence"))
        for claim in numbers.claims:
            mark = Text("holds", "green") if claim.holds else Text("does not", "red")
            claims.add_row(mark, Text(claim.claim), Text(claim.evidence))
        parts.append(claims)
    if numbers.timing:
        spent = ", ".join(f"{stage} {duration(s)}" for stage, s in numbers.timing.items())
        parts.append(Text(f"Time: {duration(numbers.seconds)} ({spent})"))
    if folder is not None:
        parts.append(
            Text(f"Report: {Path(folder) / 'report.html'}, numbers: report.json beside it")
        )
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _verdict(outcome: Outcome) -> str:
    if outcome.low is not None and outcome.low > 0:
        return "does better than"
    if outcome.high is not None and outcome.high < 0:
        return "does worse than"
    return "cannot be told from"


def _hue(outcome: Outcome) -> str:
    return {"does better than": "green", "does worse than": "red"}.get(_verdict(outcome), "")


def _clauses(found: dict[str, Outcome], second: str) -> str:
    """Each mode's verdict with its interval; a verdict that both share is said once."""
    clauses, last = [], ""
    for mode, o in found.items():
        verdict = _verdict(o)
        how = "greedily" if mode == "greedy" else "at temperature 1"
        said = "" if verdict == last else f"{verdict} {second} "
        interval = span(o.low, o.high)
        clauses.append(f"{said}{how} (net {points(o.net)} points, 95{THIN}% interval {interval})")
        last = verdict
    return " and ".join(clauses)


def _table(title: str, names: tuple[str, ...], numbers: tuple[str, ...] = ()) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    for name in names:
        table.add_column(name)
    for head in numbers:
        table.add_column(head, justify="right", no_wrap=True)
    return table
