"""What the commands share that read a file of pairs twice: into the table, and to write it."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from glm_jax.data import balance
from glm_jax.data.lengths import Text, token_lengths
from glm_jax.data.pair_table import INTERNED, PairTable, cut, scan
from glm_jax.data.records import Pair
from glm_jax.data.rewriting import Edit, rewrite
from glm_jax.data.sources import open_pairs
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.progress import console, progress

T = TypeVar("T")


class Source(NamedTuple):
    """A file of pairs, its parts, and the fields to group by; None: those that it has."""

    path: str
    parts: list[Iterable[Any]]
    by: list[str] | None


def opened(
    path: str,
    group: Sequence[str] = (),
    *,
    layout: str = "auto",
    category: str | None = None,
    language: str | None = None,
) -> Source:
    """The file at `path`; `group`, `category` and `language` are fields of its rows.

    A field to group by that pairs do not know is read as their category, or else as their
    language, whichever is not named.
    """
    read_as = {"category": category, "language": language}
    spare = [name for name, field in read_as.items() if field is None and name not in group]
    by = []
    for field in group:
        known = next((name for name, other in read_as.items() if other == field), field)
        if known not in INTERNED:
            if not spare:
                raise InputError(f"--group {field}: at most two fields that pairs do not know")
            known = spare.pop(0)
            read_as[known] = field
        by.append(known)
    return Source(path, cut(open_pairs(path, layout, **read_as)), by or None)


def scanned(source: Source, seed: int = 0) -> PairTable:
    with bar(f"reading {source.path}", len(source.parts)) as done:
        return scan(source.parts, seed=seed, done=done)


def pair_at(source: Source, row: int) -> Pair:
    """The pair of a row of the table: for messages, since it reads the file again."""
    return next(islice(chain.from_iterable(source.parts), row, None))


def check_ids(source: Source, table: PairTable) -> None:
    """Raises InputError, which names them, if two pairs have the same id."""
    if again := balance.same_draws(table.draws):
        raise InputError(same_id(source.path, pair_at(source, again[0]).id))


def same_id(file: str, pair_id: str) -> str:
    """What is said of two pairs of one id, and what helps."""
    return (
        f"{file}: two pairs have the id {pair_id!r}; `glm-rlhf data filter` adds up judgements of "
        "the same responses, other pairs need ids of their own"
    )


def counted(
    source: Source, table: PairTable, tokenizer: Tokenizer, texts: Sequence[Text]
) -> dict[Text, np.ndarray]:
    """Tokens of the texts, from beside the file if they were counted before."""
    with bar(f"counting tokens of {source.path}", len(table)) as done:
        beside = Path(source.path)
        return token_lengths(source.parts, table, tokenizer, texts, beside=beside, done=done)


def written(
    source: Source,
    table: PairTable,
    where: np.ndarray,
    outputs: Sequence[str],
    edit: Callable[[int, int], Edit] | None = None,
) -> None:
    """Writes the pairs as `rewriting.rewrite` does."""
    with bar(f"writing {outputs[0]}", len(source.parts)) as done:
        rewrite(source.parts, table.sizes, where, [Path(output) for output in outputs], edit, done)


def check_files(*files: str) -> None:
    """Raises InputError if two of them are the same."""
    paths = [os.path.realpath(file) for file in files]
    for i, file in enumerate(files):
        if paths[i] in paths[:i]:
            raise InputError(f"{file}: what is read and what is written need a file each")


def dropped_beside(output: str) -> str:
    """The file for what is dropped, named after the one for what is kept."""
    stem = output.removesuffix(".gz").removesuffix(".zst").removesuffix(".jsonl")
    return f"{stem}.dropped.jsonl"


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of the rows, all with the first one's fields."""
    table = Table()
    for name in rows[0]:
        side = "left" if name == "group" else "right"
        table.add_column(name.replace("_", " "), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


def watched(label: str, found: Iterable[T]) -> Iterator[T]:
    """The same, one by one, while a terminal shows how many there were."""
    with bar(label, None) as done:
        for number, each in enumerate(found, 1):
            yield each
            if number % 100 == 0:
                done(number)


@contextmanager
def bar(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    if not console.is_terminal:
        yield lambda done: None
        return
    with progress(label, total, told=False) as bar:
        yield bar.update
