"""Which pairs teach: post-filtering of preferences (arXiv 2404.00934, section 2), and hold-outs.

Dropped, in this order of reasons:
  empty      a response is blank
  identical  both responses are the same text
  tie        the annotator saw no difference
  cycle      the preferences over one prompt's responses lead back to where they started
  too_long   the tokens handed in exceed the limit
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from glm_jax.data.records import Dialogue, Pair, Prompt, draw, prompt_key, to_dict

REASONS = ("empty", "identical", "tie", "cycle", "too_long")

Record = TypeVar("Record", Prompt, Dialogue, Pair)


class Dropped(NamedTuple):
    pair: Pair
    reason: str


def filter_pairs(
    pairs: Sequence[Pair],
    *,
    lengths: Sequence[int] | np.ndarray | None = None,
    max_tokens: int | None = None,
) -> tuple[list[Pair], list[Dropped]]:
    """Kept pairs and dropped ones, both in the order given.

    `lengths`: tokens of each pair (prompt and longer response), held against `max_tokens`.
    """
    none = np.zeros(len(pairs), bool)
    too_long = none if max_tokens is None else np.asarray(lengths) > max_tokens
    kept, dropped = [], []
    for pair, cyclic, long in zip(pairs, _cyclic(pairs), too_long, strict=True):
        reason = _fault(pair) or ("cycle" if cyclic else "too_long" if long else None)
        if reason is None:
            kept.append(pair)
        else:
            dropped.append(Dropped(pair, reason))
    return kept, dropped


def count(kept: Sequence[Pair], dropped: Sequence[Dropped]) -> dict[str, dict[str, int]]:
    """Pairs by reason, kept and in total: for "all", and for every category."""
    counts: dict[str, dict[str, int]] = {}
    fates = [(pair, "kept") for pair in kept] + list(dropped)
    for pair, fate in fates:
        for group in ("all", pair.category):
            if group is not None:
                row = counts.setdefault(group, dict.fromkeys((*REASONS, "kept", "total"), 0))
                row[fate] += 1
                row["total"] += 1
    return counts


def dropped_rows(dropped: Sequence[Dropped]) -> list[dict[str, Any]]:
    """One JSON object a dropped pair, with its reason, for `records.write`."""
    return [{"reason": reason, **to_dict(pair)} for pair, reason in dropped]


def hold_out(
    records: Sequence[Record], share: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """Training and held-out records, split by the first user message.

    Whatever begins alike lies on one side: pairs of one prompt, and a dialogue's later turns.
    """
    training: list[Record] = []
    held_out: list[Record] = []
    for record in records:
        opening = next((m["content"] for m in record.prompt if m["role"] == "user"), "")
        (held_out if draw(seed, opening) < share * 2**64 else training).append(record)
    return training, held_out


def _fault(pair: Pair) -> str | None:
    if not pair.chosen.strip() or not pair.rejected.strip():
        return "empty"
    if pair.chosen == pair.rejected:
        return "identical"
    return "tie" if pair.tie else None


def _cyclic(pairs: Sequence[Pair]) -> np.ndarray:
    """Bool [N]: the pair lies on a cycle of preferences, be it of two responses.

    Responses to a prompt are nodes, a decided pair is an edge from the better to the worse; an
    edge lies on a cycle just if both its ends are in one strongly connected component. Merely
    overlapping pairs (a > b, a > c, b > c) are no cycle.
    """
    nodes: dict[tuple[str, str], int] = {}
    decided = np.array([_fault(pair) is None for pair in pairs], bool)
    prompts = [prompt_key(pair.prompt) for pair in pairs]
    better, worse = (
        np.array(
            [
                nodes.setdefault((prompt, text), len(nodes))
                for prompt, text in zip(prompts, texts, strict=True)
            ],
            int,
        )
        for texts in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    )
    edges = (np.ones(decided.sum(), bool), (better[decided], worse[decided]))
    graph = coo_array(edges, shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, directed=True, connection="strong")
    return decided & (component[better] == component[worse])
