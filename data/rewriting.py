"""The second pass over a file: its pairs again, each into the file it was decided for."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from pydantic_core import to_json

from glm_jax.data import writing
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
    (compressed where the name ends in `.gz` or `.zst`) when all is written, or none.
    Raises InputError if the pairs are not as many as before.
    """
    stops = np.cumsum(sizes).tolist()
    tasks = (  # one after the other: all edits together may be large
        (part, where[stop - size : stop], len(outputs), edit and edit(stop - size, stop))
        for part, size, stop in zip(parts, sizes, stops, strict=True)
    )
    check_outputs(outputs)
    with ExitStack() as stack:
        unfinished = [stack.enter_context(writing.unfinished(path)) for path in outputs]
        # closed before the files get their names
        with ExitStack() as open_files:
            files = [
                open_files.enter_context(writing.opened(part, path.suffix))
                for part, path in zip(unfinished, outputs, strict=True)
            ]
            if len(parts) == 1:  # line by line: the part may be a file that cannot be cut
                part, targets, _, edit_part = next(tasks)
                for target, line in _lines(part, targets, edit_part):
                    files[target].write(line)
                done(1)
                return
            for number, texts in enumerate(in_order(_written, tasks), start=1):
                for file, text in zip(files, texts, strict=True):
                    file.write(text)
                done(number)


def check_outputs(outputs: Sequence[Path]) -> None:
    """Raises InputError unless all of them can be written, as lines of text."""
    for path in outputs:
        if path.suffix not in writing.TEXT:
            raise InputError(
                f"{path}: what is left is written as .jsonl, .jsonl.gz or .jsonl.zst; "
                "`glm-rlhf data convert` makes other files of it"
            )
        if path.is_dir():
            raise InputError(f"{path}: a folder lies there; expected the name of a file")


def _written(
    pairs: Iterable[Pair], where: np.ndarray, outputs: int, edit: Edit | None
) -> list[bytes]:
    """The lines of a part for each output."""
    lines: list[list[bytes]] = [[] for _ in range(outputs)]
    for target, line in _lines(pairs, where, edit):
        lines[target].append(line)
    return [b"".join(found) for found in lines]


def _lines(
    pairs: Iterable[Pair], where: np.ndarray, edit: Edit | None
) -> Iterator[tuple[int, bytes]]:
    """Each line of a part that is written, and to which output."""
    targets, rows = where.tolist(), 0
    for row, pair in enumerate(pairs):
        rows = row + 1
        if rows <= len(targets) and targets[row] != NOWHERE:
            yield targets[row], to_json(to_dict(pair) if edit is None else edit(row, pair)) + b"\n"
    if rows != len(targets):
        raise InputError("the pairs have changed while they were read; start again")
