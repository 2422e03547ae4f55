"""The report on preference data: how large it is, and how much of it is length.

Dims: N pairs, ties left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from glm_jax.data.balance import balance, same_draws
from glm_jax.data.length_model import cross_validated
from glm_jax.data.numbers import bare, count, percent, signed, span
from glm_jax.data.pair_sizes import PairSizes, measure, sample
from glm_jax.data.records import Pair
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.preference import files
from glm_jax.train.preference.files import Source
from glm_jax.train.reports import html_page
from glm_jax.train.reports.data_figures import figures
from glm_jax.train.reports.data_schema import DataReport
from glm_jax.train.reports.length_bias import described
from glm_jax.train.statistics import accuracy

SAMPLE = 50_000  # pairs that are measured; of a larger file, those with the smallest hashes


def data_report(
    pairs: Iterable[Pair],
    tokenizer: Tokenizer | None = None,
    *,
    by: Sequence[str] | None = None,
    buckets: int = 8,
    seed: int = 0,
    size: int = SAMPLE,
    title: str = "Preference data",
    file: str | None = None,
    model: str | None = None,
) -> dict[str, Any]:
    """The numbers of docs/report.md, "Data", from one reading of the pairs.

    Lengths are tokens, or characters without a tokenizer. `by` names the fields whose groups pairs
    are balanced and reported by: category and language, as far as there are any, if not given.
    `file` and `model` are only told. Raises InputError where there are no pairs but ties.
    """
    found = sample(pairs, size, seed)
    if not found.pairs:
        raise InputError(f"{file or title}: no pairs to report on, {found.ties} are ties")
    sizes = measure(found.pairs, tokenizer, by, seed)
    if again := same_draws(sizes.draws_N):
        raise InputError(files.same_id(file or title, found.pairs[again[0]].id))
    balanced = balance(
        sizes.chosen_N, sizes.rejected_N, sizes.draws_N, sizes.group_codes(), buckets=buckets
    )
    after, found_bias = sizes.take(balanced.kept), described(sizes, balanced.kept)
    before_bias, after_bias = found_bias["bias"].values()
    return {
        "kind": "data",
        "title": title,
        "source": {
            "file": file,
            "unit": "characters" if tokenizer is None else "tokens",
            "tokenizer": model,
            "comparisons": found.comparisons,
            "ties": found.ties,
            "read": len(found.pairs),
            "seed": seed,
        },
        **found_bias,
        "balance": {
            "rows": balanced.rows,
            "longer_better_before": before_bias["all"]["share"],
            "longer_better_after": after_bias["all"]["share"] if after_bias else None,
        },
        "pooled": balanced.pooled,
        "length_model": {
            when: accuracy(length_margins(part, seed))
            for when, part in (("before", sizes), ("after", after))
            if len(part)
        },
    }


def report_file(
    path: str,
    tokenizer: str | None = None,
    output: str | None = None,
    group: Sequence[str] = (),
    json: bool = False,
    layout: str = "auto",
    category: str | None = None,
    language: str | None = None,
) -> None:
    """What `glm-rlhf data report` does: writes the report of a file and prints its short table.

    `group`: the fields that name the group that pairs are balanced and reported in; `output`: the
    folder, named after the file if not given.
    """
    counting = Tokenizer.load(tokenizer) if tokenizer else None
    source = files.opened(path, group, layout=layout, category=category, language=language)
    name = Path(path).name
    values = data_report(
        _pairs(source), counting, by=source.by, title=f"Preference data: {name}", file=path,
        model=tokenizer,
    )  # fmt: skip
    folder = output or Path(path).with_name(f"{name.partition('.')[0]}-report")
    written = write(folder, values)
    if json:
        print(dumps(html_page.read(folder), ensure_ascii=False))
    else:
        Console().print(told(values))
        print(f"wrote {written} and report.json beside it")


def _pairs(source: Source) -> Iterator[Pair]:
    with files.bar(f"reading {source.path}", len(source.parts)) as done:
        for number, part in enumerate(source.parts, start=1):
            yield from part
            done(number)


def length_margins(sizes: PairSizes, seed: int = 0) -> np.ndarray:
    """Float [N]: above 0 where trees that see length, category and language alone are right of a
    pair that they were not fitted on."""
    return cross_validated(sizes.lengths(), sizes.prompts_N, seed=seed) - 0.5


def write(folder: str | Path, values: dict[str, Any]) -> Path:
    """Writes report.json and report.html into the folder; returns the page's path."""
    report = html_page.parse(DataReport, values)
    return html_page.put(folder, report, page(report))


def page(report: DataReport) -> str:
    """The HTML page of data."""
    drawn, told = figures(report), summary(report)
    return html_page.render("data_report.html.j2", report=report, figures=drawn, summary=told)


def summary(report: DataReport) -> list[str]:
    """What the numbers say, in sentences."""
    before, after = (report.bias.get(when, {}).get("all") for when in ("before", "after"))
    said = [f"{count(report.source.comparisons)} comparisons."]
    if before and before.share is not None:
        said.append(
            f"The longer response is the better one in {percent(before.share)} of the pairs"
            f" (95 % interval {span(*before.ci95, plus=False)})"
            + (f", after balancing in {percent(after.share)}." if after else ".")
        )
    if model := report.length_model.get("before"):
        told = f"Trees that see length alone are right in {percent(model.accuracy)}"
        left = report.length_model.get("after")
        said.append(told + (f", after it in {percent(left.accuracy)}." if left else "."))
    return said


def told(values: dict[str, Any]) -> Group:
    """The short table for the terminal."""
    report = html_page.parse(DataReport, values)
    rows = Table(
        title=f"Means in {report.source.unit}", title_justify="left", title_style="bold",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
    )  # fmt: skip
    rows.add_column("", overflow="fold")
    for head in ("pairs", "turns", "history", "prompt", "response", "longer better, %"):
        rows.add_column(head, justify="right", no_wrap=True)
    for name, s in report.sizes.items():
        b = report.bias["before"][name]
        rows.add_row(
            Text(name), count(s.comparisons), f"{s.turns:.1f}", f"{s.history:.1f}",
            f"{s.prompt:.1f}", f"{s.response:.1f}",
            f"{bare(b.share)} [{span(*b.ci95, plus=False)}]",
        )  # fmt: skip
    lines = []
    for when, model in report.length_model.items():
        b = report.bias[when]["all"]
        lines.append(
            f"{when} balancing, {count(model.n)} pairs: longer is better in {percent(b.share)},"
            f" length alone is right in {percent(model.accuracy)}"
            f" [{span(*model.ci95, plus=False)}], correlation {signed(b.length_correlation)}"
        )
    if report.source.read < report.source.comparisons - report.source.ties:
        lines.append(f"measured on {count(report.source.read)} pairs drawn by hash")
    if report.pooled:
        lines.append("pooled, being small: " + ", ".join(report.pooled))
    return Group(rows, *map(Text, lines))
