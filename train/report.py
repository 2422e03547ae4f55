"""report.html and the closing table of a run, both from the numbers in report.json."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup
from pydantic import ValidationError
from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from glm_jax.errors import InputError
from glm_jax.train.report_figures import COMPARISONS, MODELS, MODES, figures, label_sets
from glm_jax.train.report_schema import Outcome, Report

MINUS, THIN = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}"


def write(folder: str | Path) -> Path:
    """Read `report.json` in `folder` and write `report.html` beside it; returns the page's path.

    Raises InputError when the file is missing, is not JSON, or does not hold the keys of
    docs/report.md.
    """
    source = Path(folder) / "report.json"
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{source}: no such file; a run writes it when it is evaluated") from None
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{source}:{error.lineno}: not JSON: {error.msg}") from None
    text = page(parse(values, str(source)))
    target = source.with_name("report.html")
    unfinished = target.with_name(f".report.html.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, target)
    return target


def parse(values: Any, where: str = "report.json") -> Report:
    """The numbers with their types; InputError names the first key that is not as documented."""
    try:
        return Report.model_validate(_printable(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"{where}: {key}: {first['msg']} (docs/report.md has the keys)") from None


def page(report: Report) -> str:
    """The HTML page: one file, nothing outside it, all text of the report escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    filters = (percent, points, span, number, signed, duration)
    environment.filters |= {f.__name__: f for f in filters} | {"svg": Markup}
    return environment.get_template("report_page.html.j2").render(
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
        clauses = [
            f"{_verdict(o)} {second} {'greedily' if mode == 'greedy' else 'at temperature 1'}"
            f" (net {points(o.net)} points, 95{THIN}% interval {span(o.low, o.high)})"
            for mode, o in found.items()
        ]
        judged = f"On {max(o.n for o in found.values()):,} held-out prompts, by {report.wins_by}, "
        said.append(("" if said else judged) + f"{first} {' and '.join(clauses)}.")
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
        wins = _table(f"Wins and losses, by {numbers.wins_by} (%)", "", "decoding")
        for head in ("win", "tie", "lose", f"net [95{THIN}%]", "prompts"):
            wins.add_column(head, justify="right")
        for comparison, modes in numbers.wins.items():
            for mode, outcomes in modes.items():
                if o := outcomes.get("all"):
                    net = f"{points(o.net)} [{span(o.low, o.high)}]"
                    shares = (f"{100 * share:.1f}" for share in (o.win, o.tie, o.lose))
                    wins.add_row(
                        COMPARISONS[comparison], MODES[mode], *shares, net, str(o.n), style=_hue(o)
                    )
        parts.append(wins)
    if numbers.reward:
        reward = _table("Reward models (%)", "judged by", "model")
        for head in (f"accuracy [95{THIN}%]", "length alone", "length corr.", "pairs"):
            reward.add_column(head, justify="right")
        for labels, models in label_sets(numbers.reward).items():
            for model, r in models.items():
                accuracy = f"{percent(r.accuracy)} [{span(*r.ci95, plus=False)}]"
                length = percent(r.length_only), signed(r.length_correlation)
                reward.add_row(Text(labels), Text(model), accuracy, *length, str(r.n))
        parts.append(reward)
    if numbers.claims:
        claims = _table("Claims", "", "", "evidence")
        for claim in numbers.claims:
            mark = Text("holds", "green") if claim.holds else Text("does not", "red")
            claims.add_row(mark, Text(claim.claim), Text(claim.evidence))
        parts.append(claims)
    if numbers.timing:
        spent = ", ".join(f"{stage} {duration(s)}" for stage, s in numbers.timing.items())
        total = numbers.total_seconds or sum(numbers.timing.values())
        parts.append(Text(f"Time: {duration(total)} ({spent})"))
    if folder is not None:
        parts.append(
            Text(f"Report: {Path(folder) / 'report.html'}, numbers: report.json beside it")
        )
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}{THIN}%"


def points(share: float | None) -> str:
    """A difference of shares in percentage points, signed."""
    return "–" if share is None else _minus(f"{100 * share:+.1f}")


def span(low: float | None, high: float | None, plus: bool = True) -> str:
    """An interval of shares, in percentage points."""
    if low is None or high is None:
        return "–"
    return _minus(" to ".join(f"{100 * end:{'+' if plus else ''}.1f}" for end in (low, high)))


def number(value: float | None) -> str:
    return "–" if value is None else _minus(f"{value:.2f}")


def signed(value: float | None) -> str:
    return "–" if value is None else _minus(f"{value:+.2f}")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{n}{THIN}{unit}" for n, unit in parts if n) or f"{seconds:.1f}{THIN}s"


def _minus(text: str) -> str:
    return text.replace("-", MINUS)


def _verdict(outcome: Outcome) -> str:
    if outcome.low is not None and outcome.low > 0:
        return "does better than"
    if outcome.high is not None and outcome.high < 0:
        return "does worse than"
    return "cannot be told from"


def _hue(outcome: Outcome) -> str:
    return {"does better than": "green", "does worse than": "red"}.get(_verdict(outcome), "")


def _table(title: str, *columns: str) -> Table:
    return Table(
        *columns, title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )


def _printable(value: Any) -> Any:
    """Control characters and lone surrogates replaced: neither HTML nor a terminal may have them."""
    if isinstance(value, str):
        return re.sub(
            "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", value
        )
    if isinstance(value, dict):
        return {_printable(k): _printable(v) for k, v in value.items()}
    return [_printable(v) for v in value] if isinstance(value, list | tuple) else value
