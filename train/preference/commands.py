"""The commands `glm-rlhf data ...`: preference files from one state to the next."""

import argparse

from glm_jax.train.commands import Command, later


def add(command: Command) -> None:
    """Adds the commands; `command(name, run, text)` makes the parser of one."""
    for name, (place, text, options) in COMMANDS.items():
        options(command(name, later(place), text))


def _check(found: argparse.ArgumentParser) -> None:
    _input(found)
    found.add_argument("--max-errors", type=int, metavar="N", help="list so many wrong rows")


def _convert(found: argparse.ArgumentParser) -> None:
    _input(found)
    found.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help=".jsonl, .jsonl.gz, .jsonl.zst, .parquet; with no suffix: for tensorflow-datasets",
    )
    found.add_argument("--to", metavar="LAYOUT", help="the layout to write, ours if not given")


def _filter(found: argparse.ArgumentParser) -> None:
    _input_output(found)
    found.add_argument("--dropped", metavar="FILE", help="the others, each with its reason")
    found.add_argument(
        "--group", metavar="FIELD", action="append",
        help="count by this field, not by category and language; repeatable",
    )  # fmt: skip
    found.add_argument(
        "--max-characters", metavar="N", type=int, help="of prompt and longer response"
    )
    found.add_argument("--max-tokens", metavar="N", type=int, help="the same in tokens")
    found.add_argument("--tokenizer", metavar="MODEL", help="what counts the tokens")
    found.add_argument(
        "--min-agreement", metavar="SHARE", type=float,
        help="of an annotator with the majority of the others, 0.5 unless given; 0: any",
    )  # fmt: skip
    found.add_argument(
        "--min-ms-per-char", metavar="MS", type=float, help="faster judgements are dropped"
    )
    found.add_argument(
        "--cycles", choices=("drop", "minimal"),
        help="drop all pairs that lie on one, or the fewest votes that break them",
    )  # fmt: skip
    found.add_argument(
        "--max-pairs-per-prompt", metavar="N", type=int, help="drawn from them; all unless given"
    )
    found.add_argument(
        "--near-duplicates", metavar="SHARE", type=float,
        help="drop prompts that have this share of their pieces in common with an earlier one",
    )  # fmt: skip
    found.add_argument(
        "--held-out", metavar="FILE", action="append",
        help="drop pairs whose first user message stands in this file, too; repeatable",
    )  # fmt: skip


def _balance(found: argparse.ArgumentParser) -> None:
    _input_output(found)
    found.add_argument("--tokenizer", metavar="MODEL", help="what counts the tokens")
    found.add_argument("--by", choices=("tokens", "characters"), help="tokens unless given")
    buckets = found.add_mutually_exclusive_group()
    buckets.add_argument(
        "--buckets", metavar="N", type=int,
        help="quantiles of the length differences in each group; 8 unless given",
    )  # fmt: skip
    buckets.add_argument(
        "--edges",
        metavar="N,N,...",
        type=_numbers,
        help="where each bucket begins, such as 0,10,50",
    )
    found.add_argument(
        "--levels", metavar="N", type=int,
        help="parts of a bucket, by both lengths together, that are balanced apart; 2 unless given",
    )  # fmt: skip
    found.add_argument(
        "--mode", choices=("drop", "weight"),
        help="drop the surplus of a bucket's larger side, or give both sides equal weight",
    )  # fmt: skip
    found.add_argument("--seed", type=int, help="which pairs stay")
    found.add_argument(
        "--group", metavar="FIELD", action="append",
        help="balance within this field, not category and language; repeatable",
    )  # fmt: skip


def _report(found: argparse.ArgumentParser) -> None:
    _input(found)
    found.add_argument("--tokenizer", metavar="MODEL", help="counts tokens; else characters")
    found.add_argument("--output", metavar="FOLDER", help="by default FILE without suffix, -report")
    found.add_argument(
        "--group", metavar="FIELD", action="append",
        help="balance and report by this field, not by category and language; repeatable",
    )  # fmt: skip
    found.add_argument("--json", action="store_true", help="the numbers as one object on one line")


def _split(found: argparse.ArgumentParser) -> None:
    _input(found)
    found.add_argument("--train", required=True, metavar="FILE")
    found.add_argument("--held-out", required=True, metavar="FILE")
    found.add_argument("--share", type=float, help="of the prompts held out, 0.1 unless given")
    found.add_argument("--seed", type=int, help="which prompts are held out")


def _prompts(found: argparse.ArgumentParser) -> None:
    found.add_argument("prompts", metavar="PROMPTS", help="JSON lines")
    found.add_argument("--output", required=True, metavar="FILE", help="the prompts kept")
    found.add_argument("--dropped", metavar="FILE", help="the others, each with its reason")
    found.add_argument("--quality", metavar="FOLDER", help="what `data learn-quality` wrote")
    found.add_argument("--min-characters", type=int, help="letters and digits of a prompt; 2")
    found.add_argument("--n", type=int, help="keep so many, of each category the same number")
    found.add_argument("--seed", type=int, help="which prompts stay")


def _learn_quality(found: argparse.ArgumentParser) -> None:
    found.add_argument("labels", metavar="LABELS", help="JSON lines: prompts with their `quality`")
    found.add_argument("--output", required=True, metavar="FOLDER", help="the classifier")


def _input(found: argparse.ArgumentParser) -> None:
    found.add_argument("path", metavar="FILE", help="JSON lines, Parquet, or a folder")
    found.add_argument("--layout", metavar="LAYOUT", help="recognised if not given")
    found.add_argument("--category", metavar="FIELD", help="the field that holds the category")
    found.add_argument("--language", metavar="FIELD", help="the field that holds the language")


def _input_output(found: argparse.ArgumentParser) -> None:
    _input(found)
    found.add_argument("--output", required=True, metavar="FILE", help="the pairs kept")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


COMMANDS = {
    "check": (
        "preference.checking.check",
        "whether a file of pairs is right, and what it holds",
        _check,
    ),
    "convert": (
        "preference.checking.convert",
        "the same pairs in a file of another kind or layout",
        _convert,
    ),
    "filter": (
        "preference.filtering.filter_file",
        "drop pairs that teach nothing: ties, cycles, blanks",
        _filter,
    ),
    "balance": (
        "preference.balancing.balance_file",
        "make longer and shorter equally often the better",
        _balance,
    ),
    "report": (
        "reports.data_report.report_file",
        "how large pairs are, and how much of them is length",
        _report,
    ),
    "split": (
        "preference.filtering.split_file",
        "hold out some of the prompts, with all their pairs",
        _split,
    ),
    "prompts": (
        "preference.prompts.filter_file",
        "drop prompts that cannot be answered; even categories",
        _prompts,
    ),
    "learn-quality": (
        "preference.prompts.learn_quality",
        "train a classifier of prompts on labels",
        _learn_quality,
    ),
}
