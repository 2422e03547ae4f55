"""The second pass over a file: its pairs again, each into the file it was decided for."""

import gzip
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from pydantic_core import to_json

from glm_jax.data.parallel import in_order
from glm_jax.data.records import Pair, to_dict
from glm_jax.errors import InputError

Edit: TypeAlias = Callable[[int, Pair], dict[str, Any]]  # (row in the part, pair)

NOWHERE = -1


def rewrite(
    parts: Sequence[Iterable[Pair]],
    sizes: Sequence[int],
    where: np.ndarray,
    outputs: Sequence[Path],
    edit: Callable[[int, int], Edit] | None = None,
    done: Callable[[int], Any] = lambda _: None,
) -> None:
    """Writes pair i, in the order of the parts, to `outputs[where[i]]`; NOWHERE leaves it out.

    `sizes`: pairs of each part, as the table counted them. `edit(start, stop)` gives what makes
    the written object of each pair start <= i < stop; it must be picklable. All outputs appear
    (gzipped where the name ends in `.gz`) when all is written, or none. Raises InputError if the
    pairs are not as many as before.
    """
    stops = np.cumsum(sizes).tolist()
    tasks = [
        (part, where[stop - size : stop], len(outputs), edit and edit(stop - size, stop))
        for part, size, stop in zip(parts, sizes, stops, strict=True)
    ]
    unfinished = [path.with_name(f".{path.name}.{os.getpid()}") for path in outputs]
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            files = [
                _created(stack, path, to) for path, to in zip(outputs, unfinished, strict=True)
            ]
            for number, texts in enumerate(in_order(_written, tasks), start=1):
                for file, text in zip(files, texts, strict=True):
                    file.write(text)
                done(number)
        for path, ready in zip(outputs, unfinished, strict=True):
            os.replace(ready, path)
    finally:
        for path in unfinished:
            path.unlink(missing_ok=True)


def _created(stack: ExitStack, path: Path, unfinished: Path) -> IO[bytes] | Any:
    file = stack.enter_context(unfinished.open("wb"))
    if path.suffix != ".gz":
        return file
    return stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))


def _written(
    pairs: Iterable[Pair], where: np.ndarray, outputs: int, edit: Edit | None
) -> list[bytes]:
    """The lines of a part for each output."""
    lines: list[list[bytes]] = [[] for _ in range(outputs)]
    targets, rows = where.tolist(), 0
    for row, pair in enumerate(pairs):
        rows = row + 1
        if rows <= len(targets) and targets[row] != NOWHERE:
            lines[targets[row]].append(to_json(to_dict(pair) if edit is None else edit(row, pair)))
    if rows != len(targets):
        raise InputError("the pairs have changed while they were read; start again")
    return [b"".join([line + b"\n" for line in found]) for found in lines]
