"""Whether a preference file is right, and what it holds; and its pairs in another file."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from glm_jax.data.layouts.layout import CARRIED
from glm_jax.data.parallel import in_order
from glm_jax.data.records import Pair
from glm_jax.data.sources import PairFile, open_pairs, write_pairs
from glm_jax.errors import InputError

PART_BYTES = 32 * 2**20
"Larger files are read in parts of this size, by as many processes as there are cores."

OPTIONAL = tuple(name for name in CARRIED if name != "id")
Told = Callable[[int, int], None]
"is told how many parts are done, and of how many"


@dataclass
class Checked:
    """What a file holds, and what is wrong with it."""

    layout: str
    rows: int = 0
    pairs: int = 0
    wrong: int = 0
    "rows that make no pairs since something is wrong with them"
    errors: list[str] = field(default_factory=list)
    "the first of them: file, line, field"
    fields: Counter[str] = field(default_factory=Counter)
    "in how many pairs each optional field is"
    groups: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    "pairs by category and language"


def check(
    path: str | Path,
    layout: str = "auto",
    max_errors: int = 20,
    *,
    category: str | None = None,
    language: str | None = None,
    told: Told = lambda done, total: None,
) -> Checked:
    """Reads the whole file, going on behind rows that are wrong; of those `max_errors` are told.

    Large files of plain JSON lines are read by several processes. Raises InputError if there is
    no layout to read it by.
    """
    file = open_pairs(path, layout, category=category, language=language)
    parts, found = _parts(file), Checked(file.layout)
    checked = in_order(_check_part, [(part, max_errors) for part in parts])
    _add(found, checked, max_errors, told, len(parts))
    return found


def convert(
    path: str | Path,
    output: str | Path,
    layout: str = "auto",
    to: str = "glm-rlhf",
    *,
    category: str | None = None,
    language: str | None = None,
    told: Told = lambda done, total: None,
) -> tuple[str, int]:
    """Writes the pairs of a file to another, as `sources.write_pairs` does; layout and number.

    Raises InputError at the first row that is wrong; nothing is then written.
    """
    file = open_pairs(path, layout, category=category, language=language)
    parts = _parts(file)

    def pairs() -> Iterator[Pair]:
        empty = True
        for done, part in enumerate(parts, start=1):
            for pair in part:
                empty = False
                yield pair
            told(done, len(parts))
        if empty:
            raise InputError(f"{path}: no pair in any of its rows")

    return file.layout, write_pairs(output, pairs(), to)


def _parts(file: PairFile) -> list[PairFile]:
    is_file = os.path.isfile(file.path)  # a split of a folder is none
    return file.parts(-(-os.path.getsize(file.path) // PART_BYTES) if is_file else 1)


def _check_part(part: PairFile, max_errors: int) -> Checked:
    found = Checked(part.layout)
    try:
        for number, pairs in part.judged():
            found.rows += 1
            if isinstance(pairs, ValueError):
                found.wrong += 1
                if len(found.errors) < max_errors:
                    found.errors.append(f"{part.path}:{number}: {pairs}")
                continue
            found.pairs += len(pairs)
            for pair in pairs:
                found.groups[pair.category, pair.language] += 1
                found.fields.update(
                    [name for name in OPTIONAL if not _is_absent(getattr(pair, name))]
                )
    except InputError as error:  # the rest cannot be read
        found.wrong += 1
        found.errors.append(str(error))
    return found


def _is_absent(value: object) -> bool:
    """A number of 0 is there, though it equals False."""
    return value is None or value is False


def _add(found: Checked, parts: Iterator[Checked], max_errors: int, told: Told, n: int) -> None:
    for done, part in enumerate(parts, start=1):
        found.rows += part.rows
        found.pairs += part.pairs
        found.wrong += part.wrong
        found.errors = (found.errors + part.errors)[:max_errors]
        found.fields.update(part.fields)
        found.groups.update(part.groups)
        told(done, n)
