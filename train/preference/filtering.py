"""The commands `data filter` and `data split`: which pairs of a file teach, and which test."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.data import filters, rewriting
from glm_jax.data.pair_table import group_codes
from glm_jax.data.rewriting import Edit
from glm_jax.data.splits import held_out_rows
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.preference import files


def filter_file(
    path: str,
    output: str,
    dropped: str | None = None,
    group: Sequence[str] = (),
    held_out: Sequence[str] = (),
    max_characters: int | None = None,
    max_tokens: int | None = None,
    tokenizer: str | None = None,
    near_duplicates: float | None = None,
    layout: str = "auto",
    category: str | None = None,
    language: str | None = None,
    **options: Any,
) -> None:
    """Writes the pairs that teach to `output`, the others with their reasons to `dropped`.

    `group`: the fields to count by; `dropped` is named after `output` if not given; `held_out`:
    files whose prompts must not be trained on; `max_tokens` of prompt and longer response, as
    `tokenizer`, a folder, counts them; `near_duplicates`: the share of a prompt's pieces from
    which on it is too much like an earlier one; `options`: those of `filters.filter_table`.
    """
    if dropped is None:
        dropped = files.dropped_beside(output)
    files.check_files(*{path, *held_out}, output, dropped)
    rewriting.check_outputs([Path(output), Path(dropped)])
    limit = max_characters if max_tokens is None else max_tokens
    if max_tokens is not None and (tokenizer is None or max_characters is not None):
        raise InputError("--max-tokens takes a --tokenizer, and no --max-characters")
    checked = {name: value for name, value in options.items() if name not in ("cycles", "add_up")}
    filters.check_options(limit, near_duplicates=near_duplicates, **checked)
    counting = None if max_tokens is None else Tokenizer.load(tokenizer)

    source = files.opened(path, group, layout=layout, category=category, language=language)
    others = [files.opened(file) for file in held_out]
    table = files.scanned(source)
    lengths = None
    if counting is not None:
        found = files.counted(source, table, counting, ("prompt", "chosen", "rejected"))
        lengths = found["prompt"] + np.maximum(found["chosen"], found["rejected"])
    filtered = filters.filter_table(
        table,
        lengths=lengths,
        max_length=limit,
        held_out=map(files.scanned, others),
        **options,
    )
    reasons = filtered.reasons
    if near_duplicates is not None:
        from glm_jax.data.near_duplicates import near_duplicate_rows

        again = near_duplicate_rows(source.parts, table, reasons == 0, near_duplicates)
        reasons[again] = filters.CODES["near_duplicate"]
    kept = int((reasons == 0).sum())
    if not kept:
        raise InputError(f"{path}: of {len(table)} pairs none is left after filtering")

    def edit(start: int, stop: int) -> Edit:
        summed = filters.Summed.of(filtered.sums, start, stop)
        return partial(filters.written, summed, reasons[start:stop])

    where = (reasons > 0).astype(np.int8)
    files.written(source, table, where, (output, dropped), edit)
    _tell(filters.count(reasons, group_codes(table, source.by)), filtered)
    print(f"wrote {kept} pairs to {output}, {len(table) - kept} with their reasons to {dropped}")


def split_file(
    path: str,
    train: str,
    held_out: str,
    share: float = 0.1,
    seed: int = 0,
    layout: str = "auto",
    category: str | None = None,
    language: str | None = None,
) -> None:
    """Writes about `share` of the first user messages, with all their pairs, to `held_out`."""
    if not 0 < share < 1:
        raise InputError(f"the share held out is between 0 and 1, got {share}")
    files.check_files(path, train, held_out)
    rewriting.check_outputs([Path(train), Path(held_out)])
    source = files.opened(path, layout=layout, category=category, language=language)
    table = files.scanned(source, seed)
    where = held_out_rows(table, share).astype(np.int8)
    n = int(where.sum())
    for file, rows in ((train, len(table) - n), (held_out, n)):
        if not rows:
            raise InputError(f"{path}: no pair is left for {file} with a share of {share}")
    files.written(source, table, where, (train, held_out))
    print(f"wrote {len(table) - n} pairs to {train}, {n} to {held_out}: no first message in both")


def _tell(counts: dict[str, dict[str, int]], filtered: filters.Filtered) -> None:
    """The reasons that there were, for all pairs and for each group; who, and what, is behind."""
    occur = [reason for reason, n in counts["all"].items() if n]
    files.show([{"group": name, **{r: row[r] for r in occur}} for name, row in counts.items()])
    for one in filtered.annotators:
        print(
            f"annotator {one.annotator}: agrees with the others in {one.agreed} of {one.shared} "
            f"pairs, at most {one.high:.0%} with 95 % confidence"
        )
    if filtered.cycles.too_large:
        print(f"{filtered.cycles.too_large} cycles of more than 9 responses were dropped whole")
