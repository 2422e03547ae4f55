"""Prompts whose labels lead in a circle: a better than b, b than c, c than a."""

from collections import Counter
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from glm_jax.data import cycles, records
from glm_jax.data.collection import tables
from glm_jax.data.collection.figures.judged import Judged
from glm_jax.data.collection.figures.shares import share
from glm_jax.data.pair_table import NONE, scan

EXAMPLES = 10  # prompts that are named


def contradictions(db: Session, judged: Judged) -> dict[str, Any]:
    """How often `glm-rlhf data filter` would find a prompt cyclic, by majorities and decisions.

    Of the prompts with three preferences or more, which is where cycles can be; of all, and by
    category. `pairs`: all that lie on cycles; `examples`: ids of such prompts.
    """
    edges = _edges(db, judged)
    pairs_of = Counter(prompt for prompt, _, _ in edges)
    able = [edge for edge in edges if pairs_of[edge[0]] > 2]
    if not able:
        return share(np.zeros(0, bool)) | {"pairs": 0, "examples": [], "categories": {}}
    # a cycle is known by ids alone, so that no text need be read
    table = scan([[_pair(*edge) for edge in able]])
    rows = cycles.cyclic(table, np.ones(len(table), bool)).rows
    cyclic = {able[row][0] for row in rows.tolist()}
    by_category: dict[str, list[bool]] = {}
    prompts = sorted({prompt for prompt, _, _ in able})
    categories = dict(db.execute(select(tables.Prompt.id, tables.Prompt.category)).all())
    for prompt in prompts:
        by_category.setdefault(categories[prompt] or NONE, []).append(prompt in cyclic)
    return share(np.array([prompt in cyclic for prompt in prompts])) | {
        "pairs": len(rows),
        "examples": sorted(cyclic)[:EXAMPLES],
        "categories": {name: share(np.array(found)) for name, found in sorted(by_category.items())},
    }


def _edges(db: Session, judged: Judged) -> list[tuple[str, str, str]]:
    """Prompt, better and worse response of every pair that is not a tie."""
    said = judged.labels().votes()
    decided = said.take(said.decides_N)
    said = said.take(~np.isin(said.pair_N, decided.pair_N) | said.decides_N)
    votes: dict[int, list[int]] = {}
    for pair, verdict in zip(said.pair_N.tolist(), said.verdict_N.tolist(), strict=True):
        votes.setdefault(pair, [0, 0, 0])[verdict] += 1
    ids = select(tables.Pair.id, tables.Pair.prompt_id, tables.Pair.first_id, tables.Pair.second_id)
    found = []
    for pair, prompt, first, second in db.execute(ids):
        for_second, tie, for_first = votes.get(pair, (0, 0, 0))
        if not records.is_tie(for_first, for_second, tie):
            sides = (first, second) if for_first > for_second else (second, first)
            found.append((prompt, *sides))
    return found


def _pair(prompt: str, better: str, worse: str) -> records.Pair:
    return records.Pair(
        id=f"{better} {worse}",
        prompt=[{"role": "user", "content": prompt}],
        chosen=better,
        rejected=worse,
        chosen_id=better,
        rejected_id=worse,
    )
