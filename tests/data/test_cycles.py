from itertools import permutations

import networkx
import numpy as np
import pytest

from glm_jax.data.cycles import EXACT, feedback_edges
from glm_jax.data.filters import filter_pairs
from glm_jax.data.records import Pair

VOTES = {"chosen": 3, "rejected": 1, "tie": 0}


def pair(chosen, rejected, **fields):
    ask = [{"role": "user", "content": "q"}]
    return Pair(id=f"{chosen}>{rejected}", prompt=ask, chosen=chosen, rejected=rejected, **fields)


def kept(pairs, **options):
    return {p.id for p in filter_pairs(pairs, **options)[0]}


def test_the_weakest_edge_of_a_cycle_goes():
    """Votes 3:1 weigh two, the others one each: either of these goes, but not the strong one."""
    cycle = [pair("a", "b", votes=VOTES), pair("b", "c"), pair("c", "a")]
    assert kept(cycle) == set()
    assert len(kept(cycle, cycles="minimal") & {"b>c", "c>a"}) == 1
    assert "a>b" in kept(cycle, cycles="minimal")
    strong = [pair("a", "b", votes=VOTES), pair("b", "c", votes=VOTES), pair("c", "a")]
    assert kept(strong, cycles="minimal") == {"a>b", "b>c"}
    assert kept(strong[::-1], cycles="minimal") == {"a>b", "b>c"}


def test_votes_of_several_rows_weigh_together():
    rows = [pair("a", "b"), pair("b", "c"), pair("c", "a"), pair("b", "a")]
    rows += [pair("a", "b"), pair("a", "b"), pair("b", "c")]  # 3:1, 2:0, 1:0
    assert kept(rows, cycles="minimal") == {"a>b", "b>c"}


def test_a_tie_takes_part_in_no_cycle():
    rows = [pair("a", "b"), pair("b", "c"), pair("c", "a", tie=True)]
    assert kept(rows) == kept(rows, cycles="minimal") == {"a>b", "b>c"}


def test_cycles_are_of_ids_where_there_are_any():
    ids = [("1", "2"), ("2", "3"), ("3", "1")]
    texts = [pair("a", "b"), pair("c", "d"), pair("e", "f")]
    rows = [
        Pair(**vars(p) | {"chosen_id": one, "rejected_id": other})
        for p, (one, other) in zip(texts, ids, strict=True)
    ]
    assert kept(texts) == {"a>b", "c>d", "e>f"}
    assert kept(rows) == set()


@pytest.mark.parametrize("seed", range(12))
def test_minimal_is_minimal(seed):
    """Against every order of up to six nodes; and what is left has no cycle."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 7))
    edges = [(a, b) if rng.random() < 0.5 else (b, a) for a in range(n) for b in range(a)]
    edges = np.array([edge for edge in edges if rng.random() < 0.85], np.uint64)
    weights = rng.integers(1, 5, len(edges))
    found = feedback_edges(edges[:, 0], edges[:, 1], weights)
    best = min(
        sum(w for (a, b), w in zip(edges.tolist(), weights, strict=True) if order[a] > order[b])
        for order in permutations(range(n))
    )
    assert weights[found].sum() == best
    left = np.delete(edges, found, axis=0)
    assert networkx.is_directed_acyclic_graph(networkx.DiGraph(left.tolist()))


def test_components_are_those_of_networkx():
    rng = np.random.default_rng(0)
    edges = [(int(a), int(b)) for a, b in rng.integers(0, 40, (70, 2)) if a != b]
    edges = [edge for edge in dict.fromkeys(edges) if edge[::-1] not in edges]
    component = {
        node: i
        for i, nodes in enumerate(networkx.strongly_connected_components(networkx.DiGraph(edges)))
        for node in nodes
    }
    expected = {f"{a}>{b}" for a, b in edges if component[a] != component[b]}
    assert kept([pair(str(a), str(b)) for a, b in edges]) == expected
    assert 0 < len(expected) < len(edges)


def test_a_large_component_goes_whole():
    ring = [pair(str(i), str((i + 1) % (EXACT + 1))) for i in range(EXACT + 1)]
    assert kept(ring, cycles="minimal") == set()
    assert len(kept(ring[1:], cycles="minimal")) == EXACT
