"""Rollouts: what is drawn, with which probability, and where it ends."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from glm_jax.decoding import LENGTH, STOP, Completions, rollout, row_keys
from glm_jax.sampling import Sampling
from glm_jax.train.scoring import token_log_probs

KEY = jax.random.key(0)
log_probs_of = jax.jit(token_log_probs, static_argnums=(3, 4))
LENGTHS = np.array([9, 4, 1, 6, 9, 2])
STARTS = np.array([0, 12, 20, 5, 0, 18])  # of 21 columns: pads on the right, the left, both


@partial(jax.jit, static_argnames="sampling")
def _rollout(model, prompts, mask, keys, sampling):
    return rollout(model, prompts, mask, keys, sampling)


def answer(model, prompts, sampling, *, mask=None, rows=None, key=KEY) -> Completions:
    """Completions as numpy arrays; without a mask every prompt token is real."""
    mask = np.ones_like(prompts, bool) if mask is None else mask
    rows = np.arange(len(prompts)) if rows is None else rows
    keys = row_keys(key, jnp.asarray(rows, jnp.int32))
    drawn = _rollout(model, jnp.asarray(prompts), jnp.asarray(mask), keys, sampling)
    return jax.tree.map(np.asarray, drawn)


def left_padded(width: int = 9, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Prompts of LENGTHS tokens, among them stop and pad tokens; noise under the pads."""
    prompts = np.random.default_rng(1).integers(50, size=(len(LENGTHS), 9), dtype=np.int32)
    noise = np.random.default_rng(seed).integers(50, size=(len(LENGTHS), width), dtype=np.int32)
    mask = np.arange(width) >= width - LENGTHS[:, None]
    noise[:, -9:] = np.where(mask[:, -9:], prompts, noise[:, -9:])
    return noise, mask


def whole(prompts, mask, drawn: Completions) -> tuple[jax.Array, jax.Array]:
    """Prompts and answers as one text."""
    tokens = np.concatenate([prompts, drawn.tokens], axis=1)
    return jnp.asarray(tokens), jnp.concatenate([mask, drawn.mask], axis=1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_equal_those_of_a_full_forward_pass(tiny, temperature):
    model, (prompts, mask) = tiny(), left_padded()
    drawn = answer(model, prompts, Sampling(max_new_tokens=16, temperature=temperature), mask=mask)
    expected = log_probs_of(model, *whole(prompts, mask, drawn), 16, temperature)
    assert drawn.mask.sum() > 40
    np.testing.assert_allclose(drawn.log_probs[drawn.mask], expected[drawn.mask], atol=1e-5)


def test_greedy_tokens_are_the_most_likely_of_a_full_forward_pass(tiny, outputs):
    """Their log-probabilities are those of temperature 1, whatever the key."""
    model, (prompts, mask) = tiny(), left_padded()
    sampling = Sampling(max_new_tokens=12, temperature=0.0)
    drawn = answer(model, prompts, sampling, mask=mask)
    tokens, real = whole(prompts, mask, drawn)
    logits = outputs(model, tokens, real)[:, 8:-1]
    assert drawn.mask.sum() > 30
    np.testing.assert_array_equal(drawn.tokens[drawn.mask], logits.argmax(-1)[drawn.mask])
    log_probs = jax.nn.log_softmax(logits).max(-1)
    np.testing.assert_allclose(drawn.log_probs[drawn.mask], log_probs[drawn.mask], atol=1e-5)
    other = answer(model, prompts, sampling, mask=mask, key=jax.random.key(9))
    np.testing.assert_array_equal(drawn.tokens, other.tokens)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_frequencies_match_the_log_probs(tiny, temperature):
    """Chi-square over whole answers of up to three tokens, drawn from a vocabulary of five.

    Answers expected fewer than four times count as one cell.
    """
    n, model = 8192, tiny(vocab_size=5, eos_token_id=(0,))
    prompts = np.tile(np.array([[1, 4]], np.int32), (n, 1))
    drawn = answer(model, prompts, Sampling(max_new_tokens=3, temperature=temperature))
    answers, first, counts = np.unique(drawn.tokens, axis=0, return_index=True, return_counts=True)
    # the pad token, 3, is also drawn, so that an answer is known by its tokens and its length
    lengths = [set(drawn.mask[(drawn.tokens == a).all(1)].sum(1)) for a in answers]
    assert all(len(of) == 1 for of in lengths)
    expected = n * np.exp(drawn.log_probs[first].sum(1))
    often = expected >= 4
    assert often.sum() > 15
    observed = [*counts[often], n - counts[often].sum()]
    expected = [*expected[often], n - expected[often].sum()]
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > 0.01


@pytest.mark.parametrize("pad", [3, 0])
def test_nothing_follows_the_stop_token(tiny, pad):
    """Also where the pad is a stop token: the mask keeps the one that ended the answer."""
    model = tiny(vocab_size=12, eos_token_id=(0, 7), pad_token_id=pad)
    prompts = np.random.default_rng(0).integers(12, size=(64, 3), dtype=np.int32)
    drawn = answer(model, prompts, Sampling(max_new_tokens=10))
    lengths = drawn.lengths.tolist()
    assert 10 < (drawn.finish == STOP).sum() < 60 and len(set(lengths)) > 5
    for tokens, log_probs, mask, finish, length in zip(
        drawn.tokens, drawn.log_probs, drawn.mask, drawn.finish, lengths, strict=True
    ):
        stops = np.flatnonzero(np.isin(tokens[:length], (0, 7)))
        assert stops.tolist() == ([length - 1] if finish == STOP else [])
        assert finish == STOP or (finish == LENGTH and length == 10)
        assert mask.tolist() == [True] * length + [False] * (10 - length)
        assert (tokens[length:] == pad).all() and (log_probs[length:] == 0).all()
        assert (log_probs[:length] < 0).all()
    assert {int(row[n - 1]) for row, n in zip(drawn.tokens, lengths, strict=True)} >= {0, 7}


def test_a_row_gets_its_answer_in_any_batch_under_any_padding(tiny):
    model, sampling, (prompts, mask) = tiny(), Sampling(max_new_tokens=16), left_padded()
    drawn = answer(model, prompts, sampling, mask=mask)
    wide, wide_mask = left_padded(width=21, seed=7)
    back = np.arange(len(prompts))[::-1]
    columns = (np.arange(21) - STARTS[:, None] - LENGTHS[:, None]) % 21
    moved, moved_mask = (np.take_along_axis(x, columns, axis=1) for x in (wide, wide_mask))
    ways = [
        (back, answer(model, prompts[back], sampling, mask=mask[back], rows=back)),
        (np.arange(6), answer(model, wide, sampling, mask=wide_mask)),
        (np.arange(6), answer(model, moved, sampling, mask=moved_mask)),
    ]
    for i in (1, 2):
        tight = prompts[i : i + 1, -LENGTHS[i] :]
        ways.append((np.array([i]), answer(model, tight, sampling, rows=[i])))
    for rows, other in ways:
        np.testing.assert_array_equal(drawn.tokens[rows], other.tokens)
        np.testing.assert_array_equal(drawn.mask[rows], other.mask)
        np.testing.assert_array_equal(drawn.finish[rows], other.finish)
        np.testing.assert_allclose(drawn.log_probs[rows], other.log_probs, atol=1e-5)


def test_noise_differs_by_row_by_key_and_by_place(tiny):
    """A model without a preference shows the noise itself: all answers differ, none repeats."""
    model = tiny(eos_token_id=(49,))
    model.head.set_value(jnp.zeros_like(model.head[...]))
    prompts, sampling = np.ones((8, 2), np.int32), Sampling(max_new_tokens=12)
    drawn = [
        answer(model, prompts, sampling, key=jax.random.key(seed)).tokens for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    rows = {tuple(row) for tokens in drawn[1:] for row in tokens.tolist()}
    assert len(rows) == 16
    columns = {tuple(column) for tokens in drawn[1:] for column in tokens.T.tolist()}
    assert len(columns) == 24


def test_one_token_is_the_first_of_many(tiny):
    model, (prompts, mask) = tiny(vocab_size=50, eos_token_id=tuple(range(20))), left_padded()
    one = answer(model, prompts, Sampling(max_new_tokens=1), mask=mask)
    many = answer(model, prompts, Sampling(max_new_tokens=8), mask=mask)
    assert one.tokens.shape == (6, 1) and one.mask.all()
    np.testing.assert_array_equal(one.tokens, many.tokens[:, :1])
    np.testing.assert_allclose(one.log_probs, many.log_probs[:, :1], atol=1e-6)
    np.testing.assert_array_equal(one.finish == STOP, one.tokens[:, 0] < 20)
    assert 0 < (one.finish == STOP).sum() < 6


def test_all_rows_may_stop_at_once(tiny):
    model, (prompts, mask) = tiny(eos_token_id=tuple(range(50))), left_padded()
    drawn = answer(model, prompts, Sampling(max_new_tokens=8), mask=mask)
    assert (drawn.finish == STOP).all() and drawn.lengths.tolist() == [1] * 6
    assert (drawn.tokens[:, 1:] == model.config.pad_token_id).all()


def test_a_bfloat16_model_answers_with_float32_log_probs(tiny):
    model, (prompts, mask) = tiny(), left_padded()
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), model)
    drawn = answer(half, prompts, Sampling(max_new_tokens=8), mask=mask)
    assert drawn.log_probs.dtype == np.float32
    again = log_probs_of(half, *whole(prompts, mask, drawn), 8)
    assert again.dtype == jnp.float32
    np.testing.assert_allclose(drawn.log_probs[drawn.mask], again[drawn.mask], atol=0.2)
