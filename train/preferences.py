"""Preference pairs from file to file: what the commands `filter` and `balance` do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from glm_jax.data import filters, records
from glm_jax.data.balance import balance, longer_is_better
from glm_jax.data.records import Pair
from glm_jax.errors import InputError
from glm_jax.tokenizer import Tokenizer


def filter_file(
    pairs: str, output: str, dropped: str | None = None, group: str | None = None
) -> None:
    """Writes the pairs that teach to `output`, the others with their reasons to `dropped`.

    `group`: the field to count by; `dropped` is named after `output` if not given.
    """
    kept, others = filters.filter_pairs(records.read(pairs, Pair, category=group))
    if not kept:
        raise InputError(f"{pairs}: of {len(others)} pairs none is left after filtering")
    if dropped is None:
        dropped = output.removesuffix(".gz").removesuffix(".jsonl") + ".dropped.jsonl"
    records.write(dropped, filters.dropped_rows(others))
    records.write(output, kept)
    counts = filters.count(kept, others)
    _show([{"group": name} | row for name, row in counts.items()])
    print(f"wrote {len(kept)} pairs to {output}, {len(others)} with their reasons to {dropped}")


def balance_file(
    pairs: str,
    tokenizer: str,
    output: str,
    buckets: int = 8,
    seed: int = 0,
    group: str | None = None,
) -> None:
    """Writes to `output` pairs among which longer is as often better as shorter.

    `tokenizer`: a folder with the tokenizer whose tokens are the lengths; `group`: the field that
    names the group that a pair is balanced in.
    """
    if buckets < 1:
        raise InputError(f"buckets must be at least 1, got {buckets}")
    found = records.read(pairs, Pair, category=group)
    tie = next((pair.id for pair in found if pair.tie), None)
    if tie is not None:
        raise InputError(f"{pairs}: the pair {tie!r} is a tie; run `glm-rlhf filter` first")
    encode = Tokenizer.load(tokenizer).encode_response
    chosen = np.array([len(encode(pair.chosen)) for pair in found])
    rejected = np.array([len(encode(pair.rejected)) for pair in found])
    groups = [pair.category or "(none)" for pair in found]
    ids = [pair.id for pair in found]
    kept, rows, pooled = balance(chosen, rejected, ids, groups, seed=seed, buckets=buckets)
    if not len(kept):
        raise InputError(f"{pairs}: every better response is the longer one, or none is")
    records.write(output, [found[i] for i in kept])
    _show(rows)
    if pooled:
        print("pooled, being small:", ", ".join(f"{name} ({n})" for name, n in pooled.items()))
    before, after = (
        longer_is_better(chosen, rejected),
        longer_is_better(chosen[kept], rejected[kept]),
    )
    print(f"the longer response was better in {before:.1%} of pairs, now in {after:.1%}")
    print(f"wrote {len(kept)} of {len(found)} pairs to {output}")


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table()
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if name == "group" else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
