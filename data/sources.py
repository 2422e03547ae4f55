"""Preference pairs from files of any layout, again and again, whole or in parts."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from glm_jax.data import layouts, records, rows, writing
from glm_jax.data.layouts import LAYOUTS
from glm_jax.data.records import Pair
from glm_jax.data.rows import WHOLE, Raw, Span
from glm_jax.errors import InputError

FIRST_ROWS = 20
"so many are looked at to recognise the layout"


@dataclass(frozen=True)
class PairFile:
    """A file of pairs, or a part of one: it can be iterated any number of times, and pickled.

    Iterating gives the pairs in the file's order and raises InputError (file, line, field) at the
    first row that is none.
    """

    path: str
    layout: str
    category: str | None = None
    language: str | None = None
    forced: bool = False
    span: Span = WHOLE

    def __iter__(self) -> Iterator[Pair]:
        n = 0
        for number, found in self.judged():
            if isinstance(found, ValueError):
                raise InputError(f"{self.path}:{number}: {found}") from None
            n += len(found)
            yield from found
        if not n and self.span == WHOLE:
            raise InputError(f"{self.path}: no pair in any of its rows")

    def judged(self) -> Iterator[tuple[int, list[Pair] | ValueError]]:
        """Every row's number, and its pairs or what is wrong with it."""
        for number, raw in rows.rows(self.path, self.span):
            try:
                yield number, self._pairs(number, raw)
            except ValueError as error:
                yield number, error

    def parts(self, n: int) -> list["PairFile"]:
        """The file in about n parts, in order, with the ids and line numbers that the whole has.

        Only plain JSON lines are cut; whatever else comes back whole.
        """
        return [replace(self, span=span) for span in rows.cut(self.path, n)]

    def _pairs(self, number: int, raw: Raw) -> list[Pair]:
        row = rows.parse(raw)
        name(row, number, self.category, self.language)
        layout = LAYOUTS[self.layout]
        if not self.forced and not layout.recognises(row) and (other := layouts.recognised(row)):
            raise ValueError(
                f"mixed layouts: a row of {other} in a file that began as {layout.name}"
            )
        return layout.pairs(row)


def open_pairs(
    path: str | Path,
    layout: str = "auto",
    *,
    category: str | None = None,
    language: str | None = None,
) -> PairFile:
    """The pairs of a file or folder, whose layout is recognised from its first rows unless given.

    `category`, `language`: the fields that hold them, where they are not called so.
    Raises InputError if it cannot be read, is empty, or has no layout that is known.
    """
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"unknown layout {layout!r}; there are: auto, {', '.join(LAYOUTS)}")
    found = PairFile(str(path), layout, category, language, forced=layout != "auto")
    first = list(islice(rows.rows(path), FIRST_ROWS))
    if not first:
        raise InputError(f"{path}: no records; expected pairs, one JSON object a line or row")
    return found if found.forced else replace(found, layout=_recognised(str(path), first))


def name(row: dict[str, Any], number: int, category: str | None, language: str | None) -> None:
    """What a row of any layout may call otherwise, or leave out, under our own names."""
    row["id"] = str(number if row.get("id") is None else row["id"])
    records.name_field(row, "category", category)
    records.name_field(row, "language", language)
    if language is None and row.get("language") is None and isinstance(row.get("lang"), str):
        row["language"] = row["lang"]


def _recognised(path: str, first: list[tuple[int, Raw]]) -> str:
    errors, fields = [], []
    for number, raw in first:
        try:
            row = rows.parse(raw)
        except ValueError as error:
            errors.append(f"{path}:{number}: {error}")
            continue
        if layout := layouts.recognised(row):
            return layout
        fields.append(
            f"{path}:{number}: unknown layout: it has the fields {', '.join(row) or 'none'}; "
            f"known are {', '.join(LAYOUTS)}; one can be forced with the layout's name"
        )
    raise InputError((errors or fields)[0])


def write_pairs(path: str | Path, pairs: Iterable[Pair], layout: str = "glm-rlhf") -> int:
    """Write pairs to a file or folder in the format that its name says; how many there were.

    `.jsonl`, `.jsonl.gz` and `.jsonl.zst` in any layout that can be written; `.parquet`, and a
    folder of tensorflow-datasets (a name without a suffix), in our own. The pairs are never all in
    memory, and what is there before stays unless all of them are written.
    """
    write, to_row = writing.writer(path), _row_of(layout)
    if layout != "glm-rlhf" and write is not writing.write_lines:
        raise InputError(
            f"{path}: the layout {layout} is written as .jsonl, .jsonl.gz or .jsonl.zst"
        )
    n = 0

    def written() -> Iterator[dict[str, Any]]:
        nonlocal n
        for pair in pairs:
            try:
                yield to_row(pair)
            except ValueError as error:
                raise InputError(f"{path}: the pair {pair.id!r} as {layout}: {error}") from None
            n += 1

    write(Path(path), written())
    return n


def _row_of(layout: str) -> Callable[[Pair], dict[str, Any]]:
    to_row = LAYOUTS[layout].row if layout in LAYOUTS else None
    if to_row is None:
        there_are = ", ".join(name for name, known in LAYOUTS.items() if known.row)
        raise InputError(f"pairs cannot be written as {layout!r}; there are: {there_are}")
    return to_row
