"""Prompts that are almost the same, by MinHash (Broder 1997); wants `pip install glm-rlhf[dedup]`.

Not in little memory as the exact filters: about 5 kB a prompt.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from glm_jax.data.pair_table import PairTable
from glm_jax.data.parallel import in_order
from glm_jax.data.records import Message, Pair
from glm_jax.errors import InputError

PIECE = 5  # characters: as good for Chinese as for English
PERMUTATIONS = 64
SCHEME = "affine32"  # of the permutations: signatures are 32 bits each


def near_duplicate_rows(
    parts: Sequence[Iterable[Pair]],
    table: PairTable,
    alive: np.ndarray,
    threshold: float,
    *,
    done: Callable[[int], Any] = lambda _: None,
) -> np.ndarray:
    """Bool [N]: an earlier prompt that stays has a share of `threshold` in common with this one.

    The share is the Jaccard similarity of the sets of five characters in a row, estimated with 64
    permutations (standard error 0.06 at most). Pairs of one prompt stand or fall together. Only
    pairs where `alive` [N] is true are looked at; `done` is called with the parts read so far.
    """
    lsh, lean = _datasketch()
    index = lsh(threshold=threshold, num_perm=PERMUTATIONS)
    rows = np.flatnonzero(alive)
    first = np.zeros(len(table), bool)
    first[rows[np.unique(table.prompts[rows], return_index=True)[1]]] = True
    stops = np.cumsum(table.sizes).tolist()
    tasks = [
        (part, first[stop - size : stop])
        for part, size, stop in zip(parts, table.sizes, stops, strict=True)
    ]
    kept: dict[int, Any] = {}
    again = []
    prompts = iter(np.flatnonzero(first).tolist())
    for number, signatures in enumerate(in_order(_signatures, tasks), start=1):
        for values in signatures:
            row, signature = next(prompts), lean(seed=1, hashvalues=values, scheme=SCHEME)
            # the index proposes, the estimate decides
            near = index.query(signature)
            if any(signature.jaccard(kept[other]) >= threshold for other in near):
                again.append(row)
            else:
                index.insert(row, signature)
                kept[row] = signature
        done(number)
    return alive & np.isin(table.prompts, table.prompts[again])


def _signatures(pairs: Iterable[Pair], wanted: np.ndarray) -> np.ndarray:
    """The signatures of the wanted pairs' prompts, uint32 [, PERMUTATIONS]."""
    from datasketch import MinHash

    empty = MinHash(PERMUTATIONS, seed=1, hashfunc=zlib.crc32, scheme=SCHEME)
    found = []
    for pair, asked in zip(pairs, wanted.tolist(), strict=True):
        if asked:
            signature = empty.copy()
            signature.update_batch(_pieces(pair.prompt))
            found.append(signature.hashvalues)
    return np.array(found, np.uint32).reshape(-1, PERMUTATIONS)


def _pieces(prompt: Sequence[Message]) -> list[bytes]:
    text = "\n".join(message["content"] for message in prompt)
    return list({text[i : i + PIECE].encode() for i in range(max(len(text) - PIECE + 1, 1))})


def _datasketch() -> tuple[Any, Any]:
    try:
        from datasketch import LeanMinHash, MinHashLSH
    except ImportError:
        raise InputError(
            "near duplicates are found with datasketch: pip install 'glm-rlhf[dedup]'"
        ) from None
    return MinHashLSH, LeanMinHash
