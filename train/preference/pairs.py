"""The pairs of a pipeline: filtered and balanced, as lists, and what was done as numbers."""

from collections.abc import Sequence
from pathlib import Path

from glm_jax.data import filters, records
from glm_jax.data.balance import LEVELS, Balanced, balance
from glm_jax.data.length_rule import longer_is_better
from glm_jax.data.lengths import response_lengths
from glm_jax.data.pair_table import group_codes, scan
from glm_jax.data.records import Pair
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.run_folder import write_json


def filter_and_balance(
    pairs: Sequence[Pair], tokenizer: Tokenizer, stem: Path, **settings: int
) -> None:
    """Writes STEM.filtered.jsonl, STEM.balanced.jsonl, STEM.dropped.jsonl, and STEM.json, which
    says how many of which went where; `settings`: those of `balance_pairs`.

    A pair has one annotator here, and every judgement stays a row of its own.
    """
    kept, dropped = filters.filter_pairs(pairs, min_agreement=0, add_up=False)
    if not kept:
        raise InputError(f"{stem}: of {len(pairs)} pairs none is left after filtering")
    stays, balanced, before, after = balance_pairs(kept, tokenizer, **settings)
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
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    *,
    buckets: int = 8,
    levels: int = LEVELS,
    seed: int = 0,
) -> tuple[list[Pair], Balanced, float, float]:
    """The pairs that stay, what was done, and how often longer was better, before and after."""
    table = scan([pairs], seed=seed)
    chosen, rejected = response_lengths(pairs, tokenizer)
    balanced = balance(
        chosen, rejected, table.draws, group_codes(table), buckets=buckets, levels=levels
    )
    kept = balanced.kept
    before = longer_is_better(chosen, rejected)
    after = longer_is_better(chosen[kept], rejected[kept])
    return [pairs[i] for i in kept], balanced, before, after


def groups_of(pairs: Sequence[Pair]) -> list[str]:
    """What the pairs are balanced and reported by."""
    groups = group_codes(scan([pairs]))
    return [groups.names[code] for code in groups.codes]
