"""The commands `glm-rlhf data ...`: preference files from one state to the next."""

import argparse
from argparse import Namespace
from collections.abc import Callable
from typing import Any

Command = Callable[[str, Any, str], argparse.ArgumentParser]


def add(command: Command) -> None:
    """Adds the commands; `command(name, run, text)` makes the parser of one."""
    check = command("check", _check, "whether a file of pairs is right, and what it holds")
    _input(check)
    check.add_argument("--max-errors", type=int, metavar="N", help="list so many wrong rows")

    convert = command("convert", _convert, "the same pairs in a file of another kind or layout")
    _input(convert)
    convert.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help=".jsonl, .jsonl.gz, .jsonl.zst, .parquet; with no suffix: for tensorflow-datasets",
    )
    convert.add_argument("--to", metavar="LAYOUT", help="the layout to write, ours if not given")

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

    prompts = command("prompts", _prompts, "drop prompts that cannot be answered; even categories")
    prompts.add_argument("prompts", metavar="PROMPTS", help="JSON lines")
    prompts.add_argument("--output", required=True, metavar="FILE", help="the prompts kept")
    prompts.add_argument("--dropped", metavar="FILE", help="the others, each with its reason")
    prompts.add_argument("--quality", metavar="FOLDER", help="what `data learn-quality` wrote")
    prompts.add_argument("--min-characters", type=int, help="letters and digits of a prompt; 2")
    prompts.add_argument("--n", type=int, help="keep so many, of each category the same number")
    prompts.add_argument("--seed", type=int, help="which prompts stay")

    learn = command("learn-quality", _learn_quality, "train a classifier of prompts on labels")
    learn.add_argument("labels", metavar="LABELS", help="JSON lines: prompts with their `quality`")
    learn.add_argument("--output", required=True, metavar="FOLDER", help="the classifier")


def _input(found: argparse.ArgumentParser) -> None:
    found.add_argument("path", metavar="FILE", help="JSON lines, Parquet, or a folder")
    found.add_argument("--layout", metavar="LAYOUT", help="recognised if not given")
    found.add_argument("--category", metavar="FIELD", help="the field that holds the category")
    found.add_argument("--language", metavar="FIELD", help="the field that holds the language")


def _input_output(found: argparse.ArgumentParser) -> None:
    found.add_argument("pairs", metavar="PAIRS", help="JSON lines")
    found.add_argument("--output", required=True, metavar="FILE", help="the pairs kept")


def _check(arguments: Namespace) -> None:
    from glm_jax.train import preference_files

    preference_files.check(**given(arguments))


def _convert(arguments: Namespace) -> None:
    from glm_jax.train import preference_files

    preference_files.convert(**given(arguments))


def _filter(arguments: Namespace) -> None:
    from glm_jax.train import preferences

    preferences.filter_file(**given(arguments))


def _balance(arguments: Namespace) -> None:
    from glm_jax.train import preferences

    preferences.balance_file(**given(arguments))


def _prompts(arguments: Namespace) -> None:
    from glm_jax.train import prompts

    prompts.filter_file(**given(arguments))


def _learn_quality(arguments: Namespace) -> None:
    from glm_jax.train import prompts

    prompts.learn_quality(**given(arguments))


def given(arguments: Namespace) -> dict[str, Any]:
    """What the command's own arguments say; a default that is not given lives with its function."""
    return {k: v for k, v in vars(arguments).items() if k not in ("command", "traceback")}
