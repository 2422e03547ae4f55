"""Preferences that lead back to where they started: a over b, b over c, c over a."""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from glm_jax.data.pair_table import PairTable, mixed
from glm_jax.data.votes import repeated

Cycles: TypeAlias = Literal["drop", "minimal"]

EXACT = 9  # responses up to which the lightest set of edges is found
PIECE = 2**20  # rows that are looked at together, whole prompts


class Cyclic(NamedTuple):
    rows: np.ndarray  # of the pairs to drop
    components: int
    "sets of responses that lead to each other"
    too_large: int
    "of them, those of more than EXACT responses: dropped whole"


def cyclic(
    table: PairTable, alive: np.ndarray, margins: np.ndarray | None = None, cycles: Cycles = "drop"
) -> Cyclic:
    """The pairs to drop, among those where `alive` [N] is true, so that no cycle is left.

    Responses to a prompt are nodes, a pair is an edge from the better to the worse. "drop": every
    pair inside a strongly connected component of two or more responses, as arXiv 2404.00934
    drops cyclic preferences. "minimal": of each such component the lightest set of edges by
    `margins` [N] (votes for less votes against; 1 each where not given) whose removal leaves no
    cycle; exact for up to 9 responses, and larger components are dropped whole. Merely
    overlapping pairs (a > b, a > c, b > c) are no cycle.
    """
    rows = repeated(table.prompts, alive)
    prompts = table.prompts[rows]
    starts = np.flatnonzero(
        np.concatenate([np.ones(min(len(rows), 1), bool), prompts[1:] != prompts[:-1]])
    )
    dropped, components, too_large = [np.zeros(0, int)], 0, 0
    begin = 0
    while begin < len(rows):
        at = np.searchsorted(starts, begin + PIECE)
        end = starts[at] if at < len(starts) else len(rows)
        inside, component = _components(table, rows[begin:end])
        order = np.argsort(component, kind="stable")
        edges = np.flatnonzero(np.diff(component[order])) + 1
        for members in np.split(inside[order], edges) if len(inside) else ():
            components += 1
            if cycles == "drop":
                dropped.append(members)
                continue
            weights = np.ones(len(members)) if margins is None else margins[members]
            lightest = feedback_edges(table.chosen[members], table.rejected[members], weights)
            too_large += lightest is None
            dropped.append(members if lightest is None else members[lightest])
        begin = end
    return Cyclic(np.sort(np.concatenate(dropped)), components, too_large)


def _components(table: PairTable, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that lie on cycles, and the number of the component of each."""
    prompts = table.prompts[rows]
    ends = np.concatenate(
        [mixed(prompts, table.chosen[rows]), mixed(prompts, table.rejected[rows])]
    )
    nodes, place = np.unique(ends, return_inverse=True)
    better, worse = np.split(place, 2)
    edges = (np.ones(len(rows), bool), (better, worse))
    graph = coo_array(edges, shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, directed=True, connection="strong")
    on_cycle = component[better] == component[worse]
    return rows[on_cycle], component[better[on_cycle]]


def feedback_edges(better: np.ndarray, worse: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """Indices of the lightest set of edges without which the graph has no cycle.

    A graph without cycles can be put in an order in which all edges point forward: the lightest
    set is what points backward in the best order, found by dynamic programming over the sets of
    nodes that stand first. Equally light sets are told apart by the nodes' values alone. None
    for more than EXACT nodes.
    """
    nodes, place = np.unique(np.concatenate([better, worse]), return_inverse=True)
    n = len(nodes)
    if n > EXACT:
        return None
    first, second = np.split(place, 2)
    cost = np.zeros((n, n))  # [v, u]: of the edges from v to u
    np.add.at(cost, (first, second), weights)
    lightest, last = [0.0] * 2**n, [0] * 2**n
    for chosen in range(1, 2**n):
        inside = [v for v in range(n) if chosen >> v & 1]
        # v stands last of these, so that its edges to the others point backward
        lightest[chosen], last[chosen] = min(
            (lightest[chosen ^ 1 << v] + cost[v, inside].sum(), v) for v in inside
        )
    position, left = np.zeros(n, int), 2**n - 1
    for at in reversed(range(n)):
        position[last[left]] = at
        left ^= 1 << last[left]
    return np.flatnonzero(position[first] > position[second])
