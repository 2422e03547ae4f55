"""Pairs in batches: all of them once an epoch, in few widths, with few pads, whatever they are."""

from pathlib import Path

import grain
import jax
import numpy as np
import pytest

from glm_jax.data.batches import PairArrays, pair_arrays
from glm_jax.data.packing import packed, plan, stratified
from glm_jax.data.pair_batches import PairBatches, margins_and_weights
from glm_jax.data.records import Pair, read
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer

REAL = Path(__file__).parents[2] / "../shared/data/real_pairs_open_train.jsonl.gz"
P, C, R = 3, 2, 1  # tokens of prompt, chosen and rejected of the first pair; the next have one more


def arrays(n=7):
    """Pair i: a prompt of 3 + i tokens, responses of 2 + i and 1 + i, each token telling whose it
    is: 100 i and 0, 10 or 20."""
    grown = np.arange(n, dtype=np.int32)
    sides = []
    for length, mark in ((C, 10), (R, 20)):
        rows = np.zeros((n, 30), np.int32)
        for i, row in enumerate(rows):
            row[: P + i], row[P + i : P + length + 2 * i] = 100 * i, 100 * i + mark
        sides += [rows, P + length + 2 * grown]
    return PairArrays(*sides, P + grown, grown)


def batches(shared=True, n=7, **settings):
    settings = {"batch": 2, "steps": 5, "widths": 2} | settings
    margins, weights = np.arange(n) / 10, np.arange(n) + 1.0
    return PairBatches(arrays(n), margins, weights, shared=shared, **settings)


def test_every_epoch_takes_every_pair_once_and_any_batch_one_of_each_stratum():
    lengths = np.random.default_rng(0).integers(1, 1000, 50)
    taken = stratified(7, lengths, 150, 8)
    for epoch in np.split(taken, 3):
        assert sorted(epoch) == list(range(50))
    assert any(taken[:50] != taken[50:100])
    rank = np.argsort(np.argsort(lengths))
    for at in range(0, 96, 8):  # also where it runs across the end of an epoch
        strata = np.sort(rank[taken[at : at + 8]]) * 8 / 50
        assert np.all(np.abs(strata - np.arange(8) - 0.5) < 1.0), at
    np.testing.assert_array_equal(stratified(7, lengths, 40, 8), taken[:40])  # whatever follows
    assert any(stratified(8, lengths, 150, 8) != taken)
    assert sorted(stratified(0, np.array([5, 3]), 8, 4)) == [0] * 4 + [1] * 4  # fewer than a batch


def test_rows_hold_each_text_once_and_are_nearly_as_short_as_can_be():
    lengths = np.random.default_rng(1).integers(10, 500, 40).tolist()
    rows = packed(lengths, 6)
    assert sorted(k for row in rows for k in row) == list(range(40))
    assert max(sum(lengths[k] for k in row) for row in rows) < 1.02 * sum(lengths) / 6
    assert packed([5], 3) == [[0], [], []]


def test_rows_are_a_multiple_of_what_splits_them_and_widths_are_few():
    lengths = np.random.default_rng(2).integers(50, 1000, 300)
    for unit in (1, 4, 8):
        made = plan(lengths, 16, 30, widths=3, unit=unit)
        assert made.rows % unit == 0 and len(made.widths) <= 3
        assert {made.width(i) for i in range(30)} <= set(made.widths)
        assert all(made.width(i) >= made.needed[i] for i in range(30))
    with pytest.raises(InputError, match="no rows"):
        plan(lengths[:0], 16, 30)


@pytest.mark.parametrize("shared", [True, False])
def test_a_row_says_whose_each_token_is(shared):
    made = batches(shared)
    for i, batch in enumerate(made):
        for r, pairs in enumerate(made.plan.batches[i]):
            assert (batch.weight[r] > 0).sum() == len(pairs)
            for k, n in enumerate(pairs):
                assert batch.margin[r, k] == np.float32(n / 10) and batch.weight[r, k] == n + 1
                for side, mark in enumerate((10, 20)):
                    end = batch.ends[r, k, side]
                    text, part = batch.text[r, end], batch.part[r, end]
                    seen = (batch.text[r] == text) & np.isin(batch.part[r], [0, part])
                    seen &= np.arange(len(seen)) <= end
                    length = (C, R)[side] + n
                    expected = [100 * n] * (P + n) + [100 * n + mark] * length
                    assert batch.tokens[r, seen].tolist() == expected
                    assert batch.position[r, seen].tolist() == list(range(P + n + length))
        real = batch.text > 0
        assert real.sum() == made.filled_N[[n for row in made.plan.batches[i] for n in row]].sum()
        assert shared or not batch.part.any()


def test_batches_are_a_source_of_grain_with_one_number_as_position():
    made = batches(steps=9)
    source = grain.MapDataset.source(made)
    for i in (7, 0):
        for a, b in zip(jax.tree.leaves(source[i]), jax.tree.leaves(made[i]), strict=True):
            np.testing.assert_array_equal(a, b)
    iterator = iter(source.to_iter_dataset())
    for _ in range(4):
        next(iterator)
    again = iter(source.to_iter_dataset())
    again.set_state(iterator.get_state())
    np.testing.assert_array_equal(next(again).tokens, made[4].tokens)


def test_margins_and_weights_that_are_not_given_change_nothing():
    ask = [{"role": "user", "content": "x"}]
    pairs = [
        Pair(id="p7", prompt=ask, chosen="a", rejected="b", weight=2.0, margin=0.5),
        Pair(id="p8", prompt=ask, chosen="a", rejected="b"),
    ]
    assert [x.tolist() for x in margins_and_weights(pairs)] == [[0.5, 0.0], [2.0, 1.0]]


@pytest.mark.parametrize("batch", [16, 32, 48, 64, 100])
def test_texts_of_one_length_fill_their_rows(batch):
    made = plan(np.full(1000, 300), batch, 5, widths=3)
    assert all(row for rows in made.batches for row in rows)
    assert batch * 300 == made.rows * made.widths[-1]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="../shared/data is not there")
@pytest.mark.parametrize("shared", [True, False])
def test_under_a_twentieth_of_real_batches_is_padding(shared):
    pairs = read(REAL, Pair)[::3]
    texts = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    tokenizer = Tokenizer.train_bpe(texts[:2000], 4096)
    found, _ = pair_arrays(pairs, tokenizer, 512)
    one = np.ones(len(found.rows_N), np.float32)
    made = PairBatches(found, one, one, batch=16, steps=len(one) // 16, widths=3, shared=shared)
    area = [batch.tokens.size for batch in made]
    pads = [np.sum(batch.text == 0) for batch in made]
    assert sum(pads) / sum(area) < 0.05 and made.padding == pytest.approx(sum(pads) / sum(area))
    assert len({batch.tokens.shape for batch in made}) <= 3
