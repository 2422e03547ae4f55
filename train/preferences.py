"""Preference pairs from file to file: what the commands `data filter`, `balance`, `split` do."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from glm_jax.data import filters, records, splits
from glm_jax.data.balance import Balanced, Mode, balance, check_buckets, weighed_row
from glm_jax.data.length_rule import longer_is_better
from glm_jax.data.lengths import response_lengths, token_lengths
from glm_jax.data.pair_table import INTERNED, TIE, PairTable, cut, group_codes, scan
from glm_jax.data.records import Pair
from glm_jax.data.rewriting import Edit, rewrite
from glm_jax.data.sources import open_pairs
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.progress import progress
from glm_jax.train.run_folder import write_json


def filter_file(
    pairs: str,
    output: str,
    dropped: str | None = None,
    group: Sequence[str] = (),
    held_out: Sequence[str] = (),
    max_characters: int | None = None,
    max_tokens: int | None = None,
    tokenizer: str | None = None,
    near_duplicates: float | None = None,
    layout: str = "auto",
    **options: Any,
) -> None:
    """Writes the pairs that teach to `output`, the others with their reasons to `dropped`.

    `group`: the fields to count by; `dropped` is named after `output` if not given; `held_out`:
    files whose prompts must not be trained on; `max_tokens` of prompt and longer response, as
    `tokenizer`, a folder, counts them; `near_duplicates`: the share of a prompt's pieces from
    which on it is too much like an earlier one; `options`: those of `filters.filter_table`.
    """
    if dropped is None:
        dropped = output.removesuffix(".gz").removesuffix(".jsonl") + ".dropped.jsonl"
    _check_outputs(pairs, output, dropped)
    if max_tokens is not None and tokenizer is None:
        raise InputError("tokens are counted with a tokenizer: give --tokenizer, too")
    if max_tokens is not None and max_characters is not None:
        raise InputError("give one limit: --max-tokens or --max-characters")
    filters.check_options(
        max_tokens or max_characters,
        near_duplicates=near_duplicates,
        **{name: value for name, value in options.items() if name not in ("cycles", "add_up")},
    )
    counting = None if max_tokens is None else Tokenizer.load(tokenizer)
    parts, by = _opened(pairs, group, layout)
    table = _scanned(parts, pairs)
    others = [_scanned(_opened(file, (), "auto")[0], file) for file in held_out]
    limits: dict[str, Any] = {"max_length": max_characters}
    if counting is not None:
        counted = _counted(pairs, parts, table, counting, ("prompt", "chosen", "rejected"))
        longest = counted["prompt"] + np.maximum(counted["chosen"], counted["rejected"])
        limits = {"lengths": longest, "max_length": max_tokens}
    found = filters.filter_table(table, held_out=others, **limits, **options)
    reasons = found.reasons
    if near_duplicates is not None:
        from glm_jax.data.near_duplicates import near_duplicate_rows

        with _bar(f"near duplicates in {pairs}", len(parts)) as done:
            again = near_duplicate_rows(parts, table, reasons == 0, near_duplicates, done=done)
        reasons[again] = filters.CODES["near_duplicate"]
    kept = int((reasons == 0).sum())
    if not kept:
        raise InputError(f"{pairs}: of {len(table)} pairs none is left after filtering")

    def edit(start: int, stop: int) -> Edit:
        summed = filters.Summed.of(found.sums, start, stop)
        return partial(filters.written, summed, reasons[start:stop])

    with _bar(f"writing {output}", len(parts)) as done:
        where = (reasons > 0).astype(np.int8)
        rewrite(parts, table.sizes, where, [Path(output), Path(dropped)], edit, done)
    _show_counts(filters.count(reasons, group_codes(table, by)))
    for one in found.annotators:
        print(
            f"annotator {one.annotator}: agrees with the others in {one.agreed} of {one.shared} "
            f"pairs (95 % interval to {one.high:.0%})"
        )
    if found.cycles.too_large:
        print(f"{found.cycles.too_large} cycles of more than 9 responses were dropped whole")
    print(f"wrote {kept} pairs to {output}, {len(table) - kept} with their reasons to {dropped}")


def balance_file(
    pairs: str,
    output: str,
    tokenizer: str | None = None,
    by: Literal["tokens", "characters"] = "tokens",
    buckets: int = 8,
    edges: Sequence[int] | None = None,
    mode: Mode = "drop",
    seed: int = 0,
    group: Sequence[str] = (),
    layout: str = "auto",
) -> None:
    """Writes to `output` pairs among which longer is as often better as shorter.

    `tokenizer`: a folder with the tokenizer whose tokens are the lengths; `group`: the fields
    that name the group that a pair is balanced in; `mode` "weight" keeps all pairs and gives
    each a `weight`.
    """
    if by == "tokens" and tokenizer is None:
        raise InputError("lengths are tokens: give --tokenizer MODEL, or --by characters")
    check_buckets(buckets, edges)
    _check_outputs(pairs, output)
    counting = Tokenizer.load(tokenizer) if by == "tokens" else None
    parts, fields = _opened(pairs, group, layout)
    table = _scanned(parts, pairs, seed)
    ties = np.flatnonzero(table.flags & np.uint8(TIE))
    if len(ties):
        raise InputError(
            f"{pairs}: pair number {ties[0] + 1} is a tie; run `glm-rlhf data filter` first"
        )
    chosen, rejected = table.chosen_lengths, table.rejected_lengths
    if counting is not None:
        chosen, rejected = _counted(pairs, parts, table, counting).values()
    groups = group_codes(table, fields)
    weights = table.weight if mode == "weight" else None
    balanced = balance(
        chosen, rejected, table.draws, groups,
        buckets=buckets, edges=edges, mode=mode, weights=weights,
    )  # fmt: skip
    kept = balanced.kept
    if not len(kept):
        raise InputError(f"{pairs}: every better response is the longer one, or none is")
    where = np.full(len(table), -1, np.int8)
    where[kept] = 0
    edit = None
    if balanced.weights is not None:
        weighed = np.zeros(len(table))
        weighed[kept] = balanced.weights

        def edit(start: int, stop: int) -> Edit:
            return partial(weighed_row, weighed[start:stop])

    with _bar(f"writing {output}", len(parts)) as done:
        rewrite(parts, table.sizes, where, [Path(output)], edit, done)
    _show(balanced.rows)
    if balanced.pooled:
        small = ", ".join(f"{name} ({n})" for name, n in balanced.pooled.items())
        print("pooled, being small:", small)
    before = longer_is_better(chosen, rejected)
    after = longer_is_better(chosen[kept], rejected[kept], balanced.weights)
    print(f"the longer response was better in {before:.1%} of pairs, now in {after:.1%}")
    print(f"wrote {len(kept)} of {len(table)} pairs to {output}")


def split_file(
    pairs: str, train: str, held_out: str, share: float = 0.1, seed: int = 0, layout: str = "auto"
) -> None:
    """Writes about `share` of the first user messages, with all their pairs, to `held_out`."""
    _check_outputs(pairs, train, held_out)
    parts, _ = _opened(pairs, (), layout)
    table = _scanned(parts, pairs, seed)
    where = splits.held_out_rows(table, share).astype(np.int8)
    n = int(where.sum())
    for file, rows in ((train, len(table) - n), (held_out, n)):
        if not rows:
            raise InputError(f"{pairs}: no pair is left for {file} with a share of {share}")
    with _bar(f"writing {train}", len(parts)) as done:
        rewrite(parts, table.sizes, where, [Path(train), Path(held_out)], done=done)
    print(f"wrote {len(table) - n} pairs to {train}, {n} to {held_out}: no first message in both")


def filter_and_balance(
    pairs: Sequence[Pair], tokenizer: Tokenizer, stem: Path, *, buckets: int, seed: int
) -> None:
    """Writes STEM.filtered.jsonl, STEM.balanced.jsonl, STEM.dropped.jsonl, and STEM.json, which
    says how many of which went where.

    A pair has one annotator here, and every judgement stays a row of its own.
    """
    kept, dropped = filters.filter_pairs(pairs, min_agreement=0, add_up=False)
    if not kept:
        raise InputError(f"{stem}: of {len(pairs)} pairs none is left after filtering")
    stays, balanced, before, after = balance_pairs(kept, tokenizer, buckets=buckets, seed=seed)
    if not stays:
        raise InputError(f"{stem}: every better response is the longer one, or none is")
    records.write(f"{stem}.dropped.jsonl", [filters.dropped_row(*one) for one in dropped])
    records.write(f"{stem}.balanced.jsonl", stays)
    told = {
        "filters": filters.count_pairs(kept, dropped),
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
    table = scan([pairs], seed=seed)
    chosen, rejected = response_lengths(pairs, tokenizer)
    balanced = balance(chosen, rejected, table.draws, group_codes(table), buckets=buckets)
    kept = balanced.kept
    before = longer_is_better(chosen, rejected)
    after = longer_is_better(chosen[kept], rejected[kept])
    return [pairs[i] for i in kept], balanced, before, after


def groups_of(pairs: Sequence[Pair]) -> list[str]:
    """What the pairs are balanced and reported by."""
    groups = group_codes(scan([pairs]))
    return [groups.names[code] for code in groups.codes]


def _opened(
    pairs: str, group: Sequence[str], layout: str
) -> tuple[list[Iterable[Pair]], list[str] | None]:
    """The file in parts, and the fields of a pair to group by; None: those that it has.

    A field that pairs do not know is read as their category, a second one as their language.
    """
    spare = [field for field in ("category", "language") if field not in group]
    foreign = [field for field in group if field not in INTERNED]
    if len(foreign) > len(spare):
        raise InputError(f"--group: {', '.join(foreign)}: at most {len(spare)} such fields")
    read_as = dict(zip(foreign, spare, strict=False))
    names = {field: name for name, field in read_as.items()}
    file = open_pairs(pairs, layout, category=names.get("category"), language=names.get("language"))
    return cut(file), [read_as.get(field, field) for field in group] or None


def _scanned(parts: Sequence[Iterable[Pair]], name: str, seed: int = 0) -> PairTable:
    with _bar(f"reading {name}", len(parts)) as done:
        return scan(parts, seed=seed, done=done)


def _counted(
    pairs: str,
    parts: Sequence[Iterable[Pair]],
    table: PairTable,
    tokenizer: Tokenizer,
    texts: Sequence[Any] = ("chosen", "rejected"),
) -> dict[Any, np.ndarray]:
    with _bar(f"counting tokens of {pairs}", len(table)) as done:
        return token_lengths(parts, table, tokenizer, texts, beside=Path(pairs), done=done)


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    with progress(label, total, told=False) as bar:
        yield bar.update


def _check_outputs(*files: str) -> None:
    paths = [os.path.realpath(file) for file in files]
    for i, file in enumerate(files):
        if paths[i] in paths[:i]:
            raise InputError(f"{file}: what is read and what is written need a file each")


def _show_counts(counts: Mapping[str, Mapping[str, int]]) -> None:
    """The reasons that there were, for all pairs and for each group."""
    occur = [reason for reason, n in counts["all"].items() if n]
    _show([{"group": name, **{r: row[r] for r in occur}} for name, row in counts.items()])


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table()
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if name == "group" else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
