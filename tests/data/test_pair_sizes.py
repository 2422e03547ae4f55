"""Sizes of pairs against counts made by hand."""

import numpy as np
import pytest

from glm_jax.data.pair_sizes import measure, sample, table
from glm_jax.data.records import Pair
from glm_jax.text.tokenizer import Tokenizer

LONG = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "a fox"},
]


def pair(index, prompt=LONG[1:2], chosen="yes it is", rejected="no", **fields):
    return Pair(id=str(index), prompt=prompt, chosen=chosen, rejected=rejected, **fields)


PAIRS = [
    pair(0, category="qa"),
    pair(1, category="qa", rejected="maybe it is so"),
    pair(2, LONG, category="chat", language="en"),
]


def test_sizes_in_characters_are_those_counted_by_hand():
    sizes = measure(PAIRS)
    assert sizes.turns_N.tolist() == [1, 1, 2]
    assert sizes.history_N.tolist() == [0, 0, len("be kind" + "hello" + "hi")]
    assert sizes.prompt_N.tolist() == [5, 5, 5]
    assert sizes.chosen_N.tolist() == [9, 9, 9] and sizes.rejected_N.tolist() == [2, 14, 2]
    found = table(sizes)
    assert list(found) == ["all", "chat/en", "qa"]
    assert found["qa"] == {
        "comparisons": 2, "prompts": 1, "turns": 1, "history": 0, "prompt": 5,
        "response": (9 + 2 + 9 + 14) / 4, "chosen": 9, "rejected": 8,
    }  # fmt: skip
    assert found["all"]["prompts"] == 2 and found["all"]["history"] == pytest.approx(14 / 3)


def test_tokens_are_those_of_the_tokenizer_a_response_with_its_end():
    words = ["be", "kind", "hello", "hi", "a", "fox", "yes", "it", "is", "no", "maybe", "so"]
    sizes = measure(PAIRS, Tokenizer.word_level(words))
    assert sizes.history_N.tolist() == [0, 0, 4] and sizes.prompt_N.tolist() == [1, 1, 2]
    assert sizes.chosen_N.tolist() == [4, 4, 4] and sizes.rejected_N.tolist() == [2, 5, 2]


def test_groups_are_the_fields_that_the_pairs_have():
    assert measure(PAIRS[:2]).groups == ["qa", "qa"]
    assert measure(PAIRS, by=["language"]).groups == ["(none)", "(none)", "en"]
    assert measure([pair(0)]).groups == ["(none)"]


def test_a_sample_depends_on_neither_order_nor_ties():
    many = [pair(index, tie=index % 5 == 0) for index in range(500)]
    drawn = sample(iter(many), 60)
    assert (drawn.comparisons, drawn.ties, len(drawn.pairs)) == (500, 100, 60)
    assert [p.id for p in drawn.pairs] == sorted((p.id for p in drawn.pairs), key=int)
    assert not any(p.tie for p in drawn.pairs)
    again = sample(many[::-1], 60)
    assert {p.id for p in again.pairs} == {p.id for p in drawn.pairs}
    assert 150 < np.mean([int(p.id) for p in sample(many, 100).pairs]) < 350
    assert len(sample(many, 1000).pairs) == 400
