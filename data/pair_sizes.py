"""How large preference pairs are: turns, history, prompt and responses. Dims: N pairs.

The measures of Table 2 of arXiv 2404.00934, for any pairs.
"""

import heapq
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from glm_jax.data.records import Pair, draw, prompt_key
from glm_jax.text.tokenizer import Tokenizer

FIELDS = ("category", "language")  # what pairs are grouped by where nothing else is asked for
UNGROUPED = "(none)"
SIDES = ("chosen", "rejected")


class Sampled(NamedTuple):
    pairs: list[Pair]  # in the order of the file, ties left out
    comparisons: int  # of the whole file, ties among them
    ties: int


class PairSizes(NamedTuple):
    """Columns of N pairs, in tokens if a tokenizer counted them, else in characters."""

    ids: list[str]
    categories: list[str | None]
    languages: list[str | None]
    groups: list[str]
    prompts_N: np.ndarray  # uint64, equal for pairs of one prompt
    turns_N: np.ndarray  # messages of the user
    history_N: np.ndarray  # all messages before the last one
    prompt_N: np.ndarray  # the last message
    chosen_N: np.ndarray
    rejected_N: np.ndarray

    def take(self, rows: np.ndarray) -> "PairSizes":
        return PairSizes(
            *(c[rows] if isinstance(c, np.ndarray) else [c[row] for row in rows] for c in self)
        )


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
    pairs: Sequence[Pair], tokenizer: Tokenizer | None = None, fields: Sequence[str] | None = None
) -> PairSizes:
    """Sizes in tokens (a response with its end token, a message without its role's), or, without
    a tokenizer, in characters. Groups are named by `fields`, as in `groups_of`.
    """
    if tokenizer is None:
        chosen, rejected = ([len(getattr(p, side)) for p in pairs] for side in SIDES)
    else:
        chosen, rejected = (
            [len(ids) for ids in tokenizer.encode_responses([getattr(p, side) for p in pairs])]
            for side in SIDES
        )
    messages = [[message["content"] for message in pair.prompt] for pair in pairs]
    flat = [text for texts in messages for text in texts]
    sizes = map(len, flat if tokenizer is None else tokenizer.encode_batch(flat))
    told = [[next(sizes) for _ in texts] for texts in messages]
    return PairSizes(
        [pair.id for pair in pairs],
        [pair.category for pair in pairs],
        [pair.language for pair in pairs],
        groups_of(pairs, fields),
        np.array([draw(0, prompt_key(pair.prompt)) for pair in pairs], np.uint64),
        np.array([sum(m["role"] == "user" for m in pair.prompt) for pair in pairs], int),
        np.array([sum(lengths[:-1]) for lengths in told], int),
        np.array([lengths[-1] for lengths in told], int),
        np.array(chosen, int),
        np.array(rejected, int),
    )


def groups_of(pairs: Sequence[Pair], fields: Sequence[str] | None = None) -> list[str]:
    """The values of the fields, joined by "/"; without `fields`, of category and language as far
    as any pair has them. A value that is missing is "(none)".
    """
    if fields is None:
        fields = [field for field in FIELDS if any(getattr(p, field) is not None for p in pairs)]
    if not fields:
        return [UNGROUPED] * len(pairs)
    values = [[getattr(pair, field) for field in fields] for pair in pairs]
    return ["/".join(UNGROUPED if v is None else str(v) for v in row) for row in values]


def table(sizes: PairSizes) -> dict[str, dict[str, Any]]:
    """Table 2 for "all" and for every group: counts, and means over the pairs.

    `response` is the mean over both responses of each pair.
    """
    names = np.array(sizes.groups, object)
    rows = {name: np.flatnonzero(names == name) for name in sorted(set(sizes.groups))}
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
        for name, members in {"all": np.arange(len(names)), **rows}.items()
    }
