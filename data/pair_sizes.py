"""How large preference pairs are: turns, history, prompt and responses. Dims: N pairs.

The measures of Table 2 of arXiv 2404.00934, for any pairs.
"""

import heapq
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from glm_jax.data.length_model import PairLengths
from glm_jax.data.pair_table import TOTAL, Groups, group_codes, scan
from glm_jax.data.records import Pair, draw
from glm_jax.text.tokenizer import Tokenizer


class Sampled(NamedTuple):
    pairs: list[Pair]  # in the order of the file, ties left out
    comparisons: int  # of the whole file, ties among them
    ties: int


class PairSizes(NamedTuple):
    """Columns of N pairs, in tokens if a tokenizer counted them, else in characters."""

    categories: list[str | None]
    languages: list[str | None]
    groups: list[str]  # as `pair_table.group_codes` names them
    draws_N: np.ndarray  # uint64, `records.draw(seed, id)`
    prompts_N: np.ndarray  # uint64, equal for pairs of one prompt
    turns_N: np.ndarray  # messages of the user
    history_N: np.ndarray  # all messages before the last one
    prompt_N: np.ndarray  # the last message
    chosen_N: np.ndarray
    rejected_N: np.ndarray

    def __len__(self) -> int:
        return len(self.draws_N)

    def take(self, rows: np.ndarray) -> "PairSizes":
        return PairSizes(
            *(c[rows] if isinstance(c, np.ndarray) else [c[row] for row in rows] for c in self)
        )

    def members(self) -> dict[str, np.ndarray]:
        """The rows of "all", and of every group by name."""
        names = np.array(self.groups, object)
        rows = {name: np.flatnonzero(names == name) for name in sorted(set(self.groups))}
        return {TOTAL: np.arange(len(names)), **rows}

    def lengths(self) -> PairLengths:
        """What a model that sees length alone sees of the pairs."""
        return PairLengths(self.chosen_N, self.rejected_N, self.categories, self.languages)

    def group_codes(self) -> Groups:
        names, codes_N = np.unique(np.array(self.groups, str), return_inverse=True)
        return Groups(names.tolist(), codes_N.astype(np.int32))


def sample(pairs: Iterable[Pair], size: int, seed: int = 0) -> Sampled:
    """At most `size` of the pairs, read once: those with the smallest hash of (seed, id).

    Neither the order of the pairs nor how the file is cut changes which they are.
    """
    heap: list[tuple[int, int, Pair]] = []  # the largest hash on top
    comparisons = ties = 0
    for index, pair in enumerate(pairs):
        comparisons += 1
        ties += pair.tie
        if pair.tie:
            continue
        entry = (-draw(seed, pair.id), -index, pair)
        if len(heap) < size:
            heapq.heappush(heap, entry)
        elif entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)
    return Sampled([pair for _, _, pair in sorted(heap, key=lambda e: -e[1])], comparisons, ties)


def measure(
    pairs: Sequence[Pair],
    tokenizer: Tokenizer | None = None,
    by: Sequence[str] | None = None,
    seed: int = 0,
) -> PairSizes:
    """Sizes in tokens (a response with its end token, a message without its role's), or, without
    a tokenizer, in characters. `by` names the fields to group by, as in `group_codes`.
    """
    known = scan([pairs], seed=seed)
    groups = group_codes(known, by)
    sides = [[getattr(pair, side) for pair in pairs] for side in ("chosen", "rejected")]
    messages = [[message["content"] for message in pair.prompt] for pair in pairs]
    flat = [text for texts in messages for text in texts]
    if tokenizer is None:
        chosen, rejected = (list(map(len, texts)) for texts in sides)
        sizes = map(len, flat)
    else:
        chosen, rejected = (list(map(len, tokenizer.encode_responses(texts))) for texts in sides)
        sizes = map(len, tokenizer.encode_batch(flat))
    lengths = [[next(sizes) for _ in texts] for texts in messages]
    return PairSizes(
        [pair.category for pair in pairs],
        [pair.language for pair in pairs],
        [groups.names[code] for code in groups.codes],
        known.draws,
        known.prompts,
        np.array([sum(m["role"] == "user" for m in pair.prompt) for pair in pairs], int),
        np.array([sum(each[:-1]) for each in lengths], int),
        np.array([each[-1] for each in lengths], int),
        np.array(chosen, int),
        np.array(rejected, int),
    )


def table(sizes: PairSizes) -> dict[str, dict[str, Any]]:
    """Table 2 for "all" and for every group: counts, and means over the pairs.

    `response` is the mean over both responses of each pair.
    """
    return {
        name: {
            "comparisons": len(members),
            "prompts": len(np.unique(sizes.prompts_N[members])),
            "turns": float(sizes.turns_N[members].mean()),
            "history": float(sizes.history_N[members].mean()),
            "prompt": float(sizes.prompt_N[members].mean()),
            "response": float((sizes.chosen_N + sizes.rejected_N)[members].mean() / 2),
            "chosen": float(sizes.chosen_N[members].mean()),
            "rejected": float(sizes.rejected_N[members].mean()),
        }
        for name, members in sizes.members().items()
    }
