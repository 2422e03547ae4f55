"""What the commands `glm-rlhf data check` and `convert` show of preference files."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glm_jax.data import check as checking
from glm_jax.errors import InputError
from glm_jax.train.progress import console, progress


def check(path: str, max_errors: int = 20, **named: Any) -> None:
    """Says what a file holds. Raises InputError, the first wrong rows told, if any is wrong."""
    if max_errors < 0:
        raise InputError(f"max_errors must be at least 0, got {max_errors}")
    with _told(path) as told:
        found = checking.check(path, max_errors=max_errors, told=told, **named)
    print(f"{path}: layout {found.layout}, {found.pairs:,} pairs in {found.rows:,} rows")
    for name, n in found.fields.most_common():
        print(f"  {name}: in {n:,} pairs")
    for (category, language), n in found.groups.most_common():
        print(f"  {_group(category, language)}: {n:,} pairs")
    for error in found.errors:
        print(error, file=sys.stderr)
    if found.wrong:
        rest = found.wrong - len(found.errors)
        told_rest = f", {rest:,} of them not shown" if rest else ""
        raise InputError(f"{path}: {found.wrong:,} of {found.rows:,} rows are wrong{told_rest}")
    if not found.pairs:
        raise InputError(f"{path}: no pair in any of its rows")


def convert(path: str, output: str, **named: Any) -> None:
    """Writes the pairs of a file to another one."""
    with _told(path) as told:
        layout, n = checking.convert(path, output, told=told, **named)
    print(f"{path}: layout {layout}; wrote {n:,} pairs to {output}")


@contextmanager
def _told(path: str) -> Iterator[checking.Told]:
    """A bar over the parts of the file, whose number is known once it is open."""
    if not console.is_terminal:
        yield lambda done, total: None
        return
    with progress(path, 1, told=False) as bar:
        yield lambda done, total: bar.update(done, total=total)


def _group(category: str | None, language: str | None) -> str:
    return "/".join(name for name in (category, language) if name is not None) or "(none)"
