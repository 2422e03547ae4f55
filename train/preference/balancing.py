"""The command `data balance`: pairs among which longer is as often better as shorter."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from glm_jax.data.balance import LEVELS, Mode, balance, check_buckets, weighed_row
from glm_jax.data.length_rule import longer_is_better
from glm_jax.data.pair_table import TIE, group_codes
from glm_jax.data.rewriting import NOWHERE, Edit, check_outputs
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.preference import files


def balance_file(
    path: str,
    output: str,
    tokenizer: str | None = None,
    by: Literal["tokens", "characters"] = "tokens",
    buckets: int = 8,
    edges: Sequence[int] | None = None,
    levels: int = LEVELS,
    mode: Mode = "drop",
    seed: int = 0,
    group: Sequence[str] = (),
    layout: str = "auto",
    category: str | None = None,
    language: str | None = None,
) -> None:
    """Writes to `output` pairs of which the longer response is as often the better as the shorter.

    `tokenizer`: a folder with the tokenizer whose tokens are the lengths; `group`: the fields
    that name the group that a pair is balanced in; `mode` "weight" keeps all pairs and gives
    each a `weight`.
    """
    if by == "tokens" and tokenizer is None:
        raise InputError("lengths are tokens: give --tokenizer MODEL, or --by characters")
    check_buckets(buckets, edges, levels)
    files.check_files(path, output)
    check_outputs([Path(output)])
    counting = Tokenizer.load(tokenizer) if by == "tokens" else None
    source = files.opened(path, group, layout=layout, category=category, language=language)
    table = files.scanned(source, seed)
    ties = np.flatnonzero(table.flags & np.uint8(TIE))
    if len(ties):
        raise InputError(
            f"{path}: pair number {ties[0] + 1} is a tie; run `glm-rlhf data filter` first"
        )
    files.check_ids(source, table)
    chosen, rejected = table.chosen_lengths, table.rejected_lengths
    if counting is not None:
        chosen, rejected = files.counted(source, table, counting, ("chosen", "rejected")).values()
    balanced = balance(
        chosen, rejected, table.draws, group_codes(table, source.by),
        buckets=buckets, edges=edges, levels=levels, mode=mode,
        weights=table.weight if mode == "weight" else None,
    )  # fmt: skip
    kept = balanced.kept
    if not len(kept):
        raise InputError(f"{path}: every better response is the longer one, or none is")
    where = np.full(len(table), NOWHERE, np.int8)
    where[kept] = 0
    files.written(source, table, where, [output], _edit(balanced.weights, where))
    files.show(balanced.rows)
    if balanced.pooled:
        small = ", ".join(f"{name} ({n})" for name, n in balanced.pooled.items())
        print("pooled, being small:", small)
    if mode == "weight" and len(kept) < len(table):
        print(f"{len(table) - len(kept)} pairs were dropped that have nothing to weigh against")
    before = longer_is_better(chosen, rejected)
    after = longer_is_better(chosen[kept], rejected[kept], balanced.weights)
    print(f"the longer response was better in {before:.1%} of pairs, now in {after:.1%}")
    print(f"wrote {len(kept)} of {len(table)} pairs to {output}")


def _edit(weights: np.ndarray | None, where: np.ndarray) -> Callable[[int, int], Edit] | None:
    """Puts the weights of the pairs that stay into them, if there are weights."""
    if weights is None:
        return None
    weights_N = np.zeros(len(where))
    weights_N[where != NOWHERE] = weights

    def edit(start: int, stop: int) -> Edit:
        return partial(weighed_row, weights_N[start:stop])

    return edit
