"""The commands `glm-rlhf data ...`: preference files from one state to the next."""

import argparse
from argparse import Namespace
from collections.abc import Callable
from typing import Any

Command = Callable[[str, Any, str], argparse.ArgumentParser]


def add(command: Command) -> None:
    """Adds the commands; `command(name, run, text)` makes the parser of one."""
    filters = command("filter", _filter, "drop pairs that teach nothing: ties, cycles, blanks")
    _input_output(filters)
    filters.add_argument("--dropped", metavar="FILE", help="the others, each with its reason")
    filters.add_argument("--group", metavar="FIELD", help="count by this field, not `category`")

    balance = command("balance", _balance, "make longer and shorter equally often the better")
    _input_output(balance)
    balance.add_argument("--tokenizer", required=True, metavar="MODEL", help="what counts tokens")
    balance.add_argument("--buckets", type=int, help="buckets of length difference in each group")
    balance.add_argument("--seed", type=int, help="which pairs stay")
    balance.add_argument("--group", metavar="FIELD", help="balance by this field, not `category`")

    report = command("report", _report, "how large the pairs are, and how much of them is length")
    report.add_argument("pairs", metavar="FILE", help="JSON lines")
    report.add_argument("--tokenizer", metavar="MODEL", help="counts tokens; else characters")
    report.add_argument(
        "--output",
        metavar="FOLDER",
        help="of report.html and report.json; FILE-report if not given",
    )
    report.add_argument("--category", metavar="FIELD", help="holds the category")
    report.add_argument(
        "--group",
        metavar="FIELD",
        action="append",
        help="balance and report by category, language or annotator; may be repeated",
    )
    report.add_argument("--json", action="store_true", help="the numbers as one object on one line")


def _input_output(found: argparse.ArgumentParser) -> None:
    found.add_argument("pairs", metavar="PAIRS", help="JSON lines")
    found.add_argument("--output", required=True, metavar="FILE", help="the pairs kept")


def _filter(arguments: Namespace) -> None:
    from glm_jax.train import preferences

    preferences.filter_file(**given(arguments))


def _balance(arguments: Namespace) -> None:
    from glm_jax.train import preferences

    preferences.balance_file(**given(arguments))


def _report(arguments: Namespace) -> None:
    from glm_jax.train import data_report

    data_report.report_file(**given(arguments))


def given(arguments: Namespace) -> dict[str, Any]:
    """What the command's own arguments say; a default that is not given lives with its function."""
    return {k: v for k, v in vars(arguments).items() if k not in ("command", "traceback")}
