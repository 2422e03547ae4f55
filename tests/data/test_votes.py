"""Several judgements of one pair: who is left out of the sum, and what the sum says."""

import numpy as np
import pytest

from glm_jax.data.agreement import agreements, wilson
from glm_jax.data.filters import REASONS, filter_pairs, filter_table
from glm_jax.data.pair_table import scan
from glm_jax.data.records import Pair
from glm_jax.data.votes import judgements


def pair(prompt, chosen, rejected, **fields):
    identity = f"{prompt}:{chosen}>{rejected}:{fields.get('annotator')}"
    ask = [{"role": "user", "content": prompt}]
    return Pair(id=identity, prompt=ask, chosen=chosen, rejected=rejected, **fields)


def outcome(pairs, **options):
    kept, dropped = filter_pairs(pairs, **options)
    return kept, [reason for _, reason in dropped]


def votes(chosen, rejected, tie):
    return {"chosen": chosen, "rejected": rejected, "tie": tie}


def test_votes_are_added_up_whichever_side_stands_first():
    rows = [pair("q", "b", "a", annotator="1"), pair("q", "a", "b", annotator="2")]
    rows += [pair("q", "a", "b", annotator="3"), pair("q", "a", "b", annotator="4", tie=True)]
    (kept,), reasons = outcome(rows)
    assert kept.id == "q:a>b:2" and kept.votes == votes(2, 1, 1)
    assert kept.annotator is None and reasons == ["added_up"] * 3
    again, _ = outcome([kept])
    assert again == [kept]
    (more,), _ = outcome([kept, pair("q", "b", "a", annotator="5"), pair("q", "b", "a")])
    assert more.id == "q:b>a:5" and more.votes == votes(3, 2, 1)


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        ([("a", "b", {}), ("b", "a", {})], ["tie", "added_up"]),
        ([("a", "b", {}), ("a", "b", {"tie": True}), ("a", "b", {"tie": True})],
         ["tie", "added_up", "added_up"]),
        ([("a", "b", {"votes": votes(2, 2, 0)})], ["tie"]),
        ([("a", "b", {"votes": votes(1, 2, 0)})], ["invalid"]),
        ([("a", "b", {"votes": votes(2, 1, 2)})], []),
        ([("a", "b", {"annotator": "x"}), ("a", "b", {"annotator": "x"}),
          ("b", "a", {"annotator": "y"})], ["tie", "added_up", "added_up"]),
    ],
)  # fmt: skip
def test_ties_and_who_votes_twice(rows, reasons):
    pairs = [pair("q", chosen, rejected, **fields) for chosen, rejected, fields in rows]
    assert outcome(pairs)[1] == reasons


@pytest.mark.parametrize(
    ("second", "stays"),
    [(("a", "b", votes(4, 3, 5)), ("a", votes(6, 5, 5))), (("b", "a", votes(3, 4, 5)), None)],
)
def test_ties_whose_sum_is_none(second, stays):
    """2:2 and 4:3:5 are ties, 6:5:5 is none; where b stands first in all rows nobody named a."""
    rows = [pair("q", *second[:2], votes=given) for given in (votes(2, 2, 0), second[2])]
    kept, reasons = outcome(rows)
    assert [(p.chosen, p.votes, p.tie) for p in kept] == ([(*stays, False)] if stays else [])
    assert reasons == (["added_up"] if stays else ["tie", "added_up"])


def crowd(rights, n=30):
    """n pairs that annotators judge rightly in so many of the first cases."""
    return [
        pair(f"q{i}", *(("good", "bad") if i < right else ("bad", "good")), annotator=name)
        for i in range(n)
        for name, right in rights.items()
    ]


def test_agreement_leaves_the_annotators_own_vote_out():
    """Pairs 0 to 19: all agree. 20 to 29: the others are split for a and b, and agree against c."""
    table = scan([crowd({"a": 30, "b": 30, "c": 20})])
    found = agreements(table, judgements(table, np.ones(len(table), bool)))
    assert [(one.annotator, one.shared, one.agreed) for one in found] == [
        ("a", 20, 20), ("b", 20, 20), ("c", 30, 20),
    ]  # fmt: skip
    assert agreements(table, judgements(table, table.annotator < 2))[0].shared == 30


def test_who_disagrees_is_dropped_and_only_on_evidence():
    rows = crowd({"a": 30, "b": 30, "c": 29, "bad": 7, "doubtful": 11})
    table = scan([rows])
    found = filter_table(table)
    assert [one.annotator for one in found.annotators] == ["bad"]
    gone = {rows[i].annotator for i in np.flatnonzero(found.reasons == REASONS.index("annotator"))}
    assert gone == {"bad"}
    assert "annotator" not in outcome(rows, min_agreement=0)[1]
    few = crowd({"a": 19, "b": 19, "c": 19, "bad": 0}, n=19)
    assert "annotator" not in outcome(few)[1]


def test_who_says_it_three_times_does_not_outvote_two():
    rows = crowd({"a": 30, "b": 30, "careless": 0})
    again = [row for row in rows if row.annotator == "careless"]
    table = scan([rows + again + again])
    assert [one.annotator for one in filter_table(table).annotators] == ["careless"]


def test_wilson():
    """Against the formula's value for 9 of 30, worked out by hand."""
    assert wilson(9, 30) == pytest.approx((0.1666, 0.4788), abs=1e-4)
    assert wilson(0, 20)[0] == pytest.approx(0) and wilson(20, 20)[1] == pytest.approx(1)


def test_hasty_judgements():
    rows = [pair("q", "aaaa", "bbbb", milliseconds=ms) for ms in (79, 80, None)]
    assert outcome(rows, min_ms_per_char=10)[1] == ["hasty", "added_up"]
