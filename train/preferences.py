"""Preference pairs from file to file: what the commands `filter` and `balance` do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from glm_jax.data import filters, records
from glm_jax.data.balance import Balanced, balance, longer_is_better
from glm_jax.data.records import Pair
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.run_folder import write_json


def filter_file(
    pairs: str, output: str, dropped: str | None = None, group: str | None = None
) -> None:
    """Writes the pairs that teach to `output`, the others with their reasons to `dropped`.

    `group`: the field to count by; `dropped` is named after `output` if not given.
    """
    kept, others = filters.filter_pairs(records.read(pairs, Pair, category=group))
    if not kept:
        raise InputError(f"{pairs}: of {len(others)} pairs none is left after filtering")
    if dropped is not None and Path(dropped).resolve() == Path(output).resolve():
        raise InputError(f"{output}: the kept and the dropped pairs need a file each")
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
        raise InputError(f"{pairs}: the pair {tie!r} is a tie; run `glm-rlhf data filter` first")
    kept, balanced, before, after = balance_pairs(
        found, Tokenizer.load(tokenizer), buckets=buckets, seed=seed
    )
    if not kept:
        raise InputError(f"{pairs}: every better response is the longer one, or none is")
    records.write(output, kept)
    _show(balanced.rows)
    if balanced.pooled:
        small = ", ".join(f"{name} ({n})" for name, n in balanced.pooled.items())
        print("pooled, being small:", small)
    print(f"the longer response was better in {before:.1%} of pairs, now in {after:.1%}")
    print(f"wrote {len(kept)} of {len(found)} pairs to {output}")


def filter_and_balance(
    pairs: Sequence[Pair], tokenizer: Tokenizer, stem: Path, *, buckets: int, seed: int
) -> None:
    """Writes STEM.filtered.jsonl, STEM.balanced.jsonl, STEM.dropped.jsonl, and STEM.json, which
    says how many of which went where."""
    kept, dropped = filters.filter_pairs(pairs)
    if not kept:
        raise InputError(f"{stem}: of {len(pairs)} pairs none is left after filtering")
    stays, balanced, before, after = balance_pairs(kept, tokenizer, buckets=buckets, seed=seed)
    if not stays:
        raise InputError(f"{stem}: every better response is the longer one, or none is")
    records.write(f"{stem}.dropped.jsonl", filters.dropped_rows(dropped))
    records.write(f"{stem}.balanced.jsonl", stays)
    told = {
        "filters": filters.count(kept, dropped),
        "balance": {
            "rows": balanced.rows,
            "longer_better_before": before,
            "longer_better_after": after,
        },
    }
    write_json(Path(f"{stem}.json"), told)
    records.write(f"{stem}.filtered.jsonl", kept)


def balance_pairs(
    pairs: Sequence[Pair], tokenizer: Tokenizer, *, buckets: int = 8, seed: int = 0
) -> tuple[list[Pair], Balanced, float, float]:
    """The pairs that stay, what was done, and how often longer was better, before and after."""
    chosen, rejected = response_lengths(pairs, tokenizer)
    groups, ids = groups_of(pairs), [pair.id for pair in pairs]
    balanced = balance(chosen, rejected, ids, groups, seed=seed, buckets=buckets)
    kept = balanced.kept
    before = longer_is_better(chosen, rejected)
    after = longer_is_better(chosen[kept], rejected[kept])
    return [pairs[i] for i in kept], balanced, before, after


def response_lengths(pairs: Sequence[Pair], tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the chosen and of the rejected responses, the end token counted, [N] each."""
    chosen = tokenizer.encode_responses([pair.chosen for pair in pairs])
    rejected = tokenizer.encode_responses([pair.rejected for pair in pairs])
    return np.array([len(ids) for ids in chosen]), np.array([len(ids) for ids in rejected])


def groups_of(pairs: Sequence[Pair]) -> list[str]:
    """What the pairs are balanced and reported by."""
    return [pair.category or "(none)" for pair in pairs]


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table()
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if name == "group" else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
