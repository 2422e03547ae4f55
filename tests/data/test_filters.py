import numpy as np
import pytest

from glm_jax.data.filters import count_pairs, dropped_row, filter_pairs
from glm_jax.data.pair_table import group_codes, scan
from glm_jax.data.records import Pair, Prompt, read, write
from glm_jax.data.splits import hold_out


def pair(chosen, rejected, *, prompt="q", **fields):
    messages = [{"role": "user", "content": prompt}]
    identity = f"{prompt}:{chosen}>{rejected}"
    return Pair(id=identity, prompt=messages, chosen=chosen, rejected=rejected, **fields)


def reasons(pairs, **options):
    """What became of each pair."""
    kept, dropped = filter_pairs(pairs, **options)
    fates = {p.id: "kept" for p in kept} | {p.id: reason for p, reason in dropped}
    assert len(kept) + len(dropped) == len(pairs)
    return [fates[p.id] for p in pairs]


def test_a_cycle_of_three_is_dropped_and_its_surroundings_stay():
    cycle = [pair("a", "b"), pair("b", "c"), pair("c", "a")]
    around = [pair("d", "a"), pair("b", "e"), pair("d", "e")]
    assert reasons(cycle + around) == ["cycle"] * 3 + ["kept"] * 3


def test_overlap_without_a_cycle_stays():
    assert reasons([pair("a", "b"), pair("a", "c"), pair("b", "c"), pair("d", "c")]) == ["kept"] * 4


def test_contradiction_is_a_cycle_of_two_where_votes_are_not_added_up():
    pairs = [pair("a", "b"), pair("b", "a"), pair("b", "c")]
    assert reasons(pairs, add_up=False) == ["cycle", "cycle", "kept"]
    assert reasons(pairs) == ["tie", "added_up", "kept"]


def test_a_longer_cycle_with_a_chord_goes_whole():
    ring = [pair("a", "b"), pair("b", "c"), pair("c", "d"), pair("d", "a"), pair("a", "c")]
    assert reasons(ring) == ["cycle"] * 5


def test_cycles_do_not_cross_prompts():
    pairs = [pair("a", "b"), pair("b", "c"), pair("c", "a", prompt="other")]
    assert reasons(pairs) == ["kept"] * 3


def test_a_tie_is_dropped_and_closes_no_cycle():
    assert reasons([pair("a", "b", tie=True), pair("b", "c")]) == ["tie", "kept"]
    assert reasons([pair("a", "b"), pair("b", "c"), pair("c", "a", tie=True)]) == [
        "kept",
        "kept",
        "tie",
    ]
    cycle = [pair("a", "b"), pair("b", "c"), pair("c", "a")]
    assert reasons([*cycle, pair("a", "c", tie=True)]) == ["cycle"] * 3 + ["added_up"]


def test_empty_and_identical_responses():
    assert reasons([pair(" \n", "a"), pair("a", ""), pair("a", "a"), pair("a", "a ")]) == [
        "empty",
        "empty",
        "identical",
        "kept",
    ]


def test_too_long_is_decided_on_the_lengths_handed_in():
    pairs = [pair("a", "b"), pair("c", "d")]
    assert reasons(pairs, lengths=np.array([8, 9]), max_length=8) == ["kept", "too_long"]
    pairs = [pair("12", "123"), pair("1234", "1")]
    assert reasons(pairs, max_length=4) == ["kept", "too_long"]


def test_no_pairs():
    assert filter_pairs([]) == ([], [])


def test_a_group_called_all_is_not_the_whole():
    pairs = [pair("a", "b", category="all"), pair("a", "", category="chat")]
    counts = count_pairs(*filter_pairs(pairs))
    assert {name: row["total"] for name, row in counts.items()} == {
        "all": 2, "all (group)": 1, "chat": 1,
    }  # fmt: skip
    assert group_codes(scan([pairs])).names == ["all (group)", "chat"]


def test_counts_and_rows(tmp_path):
    pairs = [
        pair("a", "b", category="qa"),
        pair("a", "b", prompt="p", category="json", tie=True),
        pair("a", "b", prompt="r"),
    ]
    kept, dropped = filter_pairs(pairs)
    counts = count_pairs(kept, dropped)
    assert {k: v for k, v in counts["all"].items() if v} == {"kept": 2, "tie": 1, "total": 3}
    assert {k: v for k, v in counts["json"].items() if v} == {"tie": 1, "total": 1}
    assert set(counts) == {"all", "qa", "json"}
    write(tmp_path / "dropped.jsonl", [dropped_row(*one) for one in dropped])
    assert read(tmp_path / "dropped.jsonl", Pair) == [pairs[1]]
    assert dropped_row(*dropped[0])["reason"] == "tie"


@pytest.mark.parametrize("seed", [0, 1])
def test_hold_outs_are_split_by_opening(seed):
    turns = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    system = {"role": "system", "content": "s"}
    records = []
    for i in range(1000):
        opening = {"role": "user", "content": f"question {i}"}
        records.append(Prompt(id=f"{i}", prompt=[opening]))
        records.append(Prompt(id=f"{i} later", prompt=[system, opening, *turns]))
    training, held_out = hold_out(records, 0.2, seed)
    sides = [{r.id.split()[0] for r in side} for side in (training, held_out)]
    assert not sides[0] & sides[1]
    assert len(training) + len(held_out) == len(records)
    assert 0.15 < len(sides[1]) / 1000 < 0.25
    reversed_sides = hold_out(records[::-1], 0.2, seed)
    assert [r.id for r in reversed_sides[1]] == [r.id for r in held_out][::-1]
    assert hold_out(records, 0.2, seed + 1)[1] != held_out
