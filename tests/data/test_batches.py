from pathlib import Path

import numpy as np
import pytest

from glm_jax.data.batches import order, pair_arrays, prompt_arrays, sft_arrays, span_mask
from glm_jax.data.records import Dialogue, Pair, Prompt, read
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer

WORDS = [f"w{i}" for i in range(30)]
TOKENIZER = Tokenizer.word_level(WORDS)
SPECIAL_TOKENS = 4  # [gMASK] <sop> <|user|> … <|assistant|>
PAD = TOKENIZER.pad_id


def words(start, n):
    return " ".join(WORDS[start : start + n])


def ask(n, **fields):
    return {"id": "0", "prompt": [{"role": "user", "content": words(0, n)}], **fields}


def dialogue(prompt_words, response_words, category=None):
    return Dialogue(**ask(prompt_words), response=words(10, response_words), category=category)


def events(counts, group="all"):
    return {event: n for event, n in counts[group].items() if n}


def test_sft_rows_are_prompt_response_end_and_pads():
    arrays, counts = sft_arrays([dialogue(2, 3)], TOKENIZER, 12)
    response = TOKENIZER.encode_response(words(10, 3))
    expected = TOKENIZER.encode_prompt(ask(2)["prompt"]) + response
    assert arrays.tokens_NxT.dtype == np.int32 and arrays.tokens_NxT.shape == (1, 12)
    assert arrays.tokens_NxT[0].tolist() == expected + [PAD] * 2
    assert (arrays.lengths_N[0], arrays.prompt_lengths_N[0]) == (10, 6)
    mask_NxT = span_mask(arrays.prompt_lengths_N, arrays.lengths_N, 12)
    assert arrays.tokens_NxT[mask_NxT].tolist() == response  # the end is learned, pads are not
    assert events(counts) == {"total": 1}


def test_pad_is_the_end_token_and_masks_do_not_care():
    assert TOKENIZER.eos_id == PAD
    mask_NxT = span_mask(np.array([2, 0]), np.array([4, 0]), 5)
    assert mask_NxT.tolist() == [[False, False, True, True, False], [False] * 5]


def test_a_long_prompt_keeps_its_specials_and_its_end():
    arrays, counts = sft_arrays([dialogue(10, 3)], TOKENIZER, 16, max_prompt=8)
    whole = TOKENIZER.encode_prompt(ask(10)["prompt"])
    assert arrays.prompt_lengths_N[0] == 8
    assert arrays.tokens_NxT[0, :8].tolist() == whole[:2] + whole[-6:]
    assert events(counts) == {"total": 1, "truncated_prompt": 1}


def test_a_long_response_loses_its_end():
    arrays, counts = sft_arrays([dialogue(2, 9)], TOKENIZER, 14)
    assert arrays.lengths_N[0] == 14
    assert arrays.tokens_NxT[0, 6:].tolist() == TOKENIZER.encode(words(10, 8))
    assert events(counts) == {"total": 1, "truncated_response": 1}
    fits, counts = sft_arrays([dialogue(2, 9)], TOKENIZER, 16)
    assert fits.tokens_NxT[0, 15] == TOKENIZER.eos_id and events(counts) == {"total": 1}


def test_dropped_records_are_counted_by_category():
    dialogues = [dialogue(10, 1, "qa"), dialogue(1, 20, "json"), dialogue(1, 1, "qa")]
    arrays, counts = sft_arrays(
        dialogues, TOKENIZER, 20, max_prompt=8, long_prompts="drop", long_responses="drop"
    )
    assert arrays.rows_N.tolist() == [2]
    assert events(counts) == {"total": 3, "dropped_prompt": 1, "dropped_response": 1}
    assert events(counts, "qa") == {"total": 2, "dropped_prompt": 1}
    assert events(counts, "json") == {"total": 1, "dropped_response": 1}


def test_empty_and_one_token_responses():
    arrays, _ = sft_arrays([dialogue(1, 0), dialogue(1, 1)], TOKENIZER, 12)
    assert (arrays.lengths_N - arrays.prompt_lengths_N).tolist() == [1, 2]


def test_pairs_share_their_prompts_tokens():
    pairs = [
        Pair(**ask(n), chosen=words(10, 5), rejected=words(12, m), category="qa")
        for n, m in [(1, 2), (4, 15), (12, 7)]
    ]
    arrays, counts = pair_arrays(pairs, TOKENIZER, 20, max_prompt=10)
    for n, length in enumerate(arrays.prompt_lengths_N):
        assert (arrays.chosen_NxT[n, :length] == arrays.rejected_NxT[n, :length]).all()
        assert arrays.chosen_NxT[n, length - 1] == TOKENIZER.role_ids["assistant"]
        assert arrays.chosen_NxT[n, length] != arrays.rejected_NxT[n, length]
    assert arrays.rejected_lengths_N.tolist() == [8, 20, 18]
    assert events(counts, "qa") == {"total": 3, "truncated_prompt": 1, "truncated_response": 1}


def test_pairs_that_differ_behind_the_cut_are_dropped():
    pair = Pair(**ask(1), chosen=words(0, 20), rejected=words(0, 21))
    arrays, counts = pair_arrays([pair], TOKENIZER, 16)
    assert arrays.chosen_NxT.shape == (0, 16)
    assert events(counts) == {"total": 1, "dropped_identical": 1}


def test_prompts_are_padded_on_the_left():
    prompts = [Prompt(**ask(n)) for n in (1, 3, 12)]
    arrays, counts = prompt_arrays(prompts, TOKENIZER, 8)
    assert arrays.tokens_NxP[0].tolist() == [PAD] * 3 + TOKENIZER.encode_prompt(prompts[0].prompt)
    assert arrays.lengths_N.tolist() == [1 + SPECIAL_TOKENS, 3 + SPECIAL_TOKENS, 8]
    whole = TOKENIZER.encode_prompt(prompts[2].prompt)
    assert arrays.tokens_NxP[2].tolist() == whole[:2] + whole[-6:]
    assert events(counts) == {"total": 3, "truncated_prompt": 1}
    arrays, counts = prompt_arrays(prompts, TOKENIZER, 8, long_prompts="drop")
    assert arrays.rows_N.tolist() == [0, 1]
    assert events(counts) == {"total": 3, "dropped_prompt": 1}


def test_impossible_limits_are_refused():
    with pytest.raises(InputError, match="16 of 16 tokens"):
        sft_arrays([dialogue(1, 1)], TOKENIZER, 16, max_prompt=16)
    with pytest.raises(InputError, match="at least 4"):
        prompt_arrays([Prompt(**ask(1))], TOKENIZER, 3)


def test_an_epoch_takes_every_row_once_and_batches_cross_its_end():
    taken = np.concatenate([order(7, 10, 4, step) for step in range(5)])
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert taken[:10].tolist() != taken[10:].tolist()


def test_order_is_a_pure_function_of_seed_and_step():
    forward = [order(0, 100, 8, step).tolist() for step in range(40)]
    backward = [order(0, 100, 8, step).tolist() for step in reversed(range(40))]
    assert forward == backward[::-1]
    assert forward != [order(1, 100, 8, step).tolist() for step in range(40)]
    in_one, in_two = order(0, 100, 16, 3), [order(0, 100, 8, step) for step in (6, 7)]
    assert in_one.tolist() == np.concatenate(in_two).tolist()
    assert sorted(order(0, 3, 9, 0)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    with pytest.raises(InputError, match="no rows"):
        order(0, 0, 8, 0)


REAL = Path(__file__).parents[3] / "shared" / "data" / "real_pairs_open_test.jsonl.gz"


@pytest.mark.skipif(not REAL.is_file(), reason="the real data sets are not beside this checkout")
def test_real_pairs_become_arrays_and_all_are_accounted_for():
    pairs = read(REAL, Pair, category="set")
    tokenizer = Tokenizer.train_bpe((pair.chosen for pair in pairs), 1000)
    arrays, counts = pair_arrays(pairs, tokenizer, 256)
    total = counts["all"]
    assert total["total"] == len(pairs) == len(arrays.rows_N) + total["dropped_identical"]
    assert total["truncated_response"] > 0 and total["truncated_prompt"] > 0
    for event in total:
        assert total[event] == sum(c[event] for group, c in counts.items() if group != "all")
    whole = arrays.chosen_lengths_N < 256
    rows = np.flatnonzero(whole)[:50]
    for row in rows:
        start, end = arrays.prompt_lengths_N[row], arrays.chosen_lengths_N[row]
        text = tokenizer.decode(arrays.chosen_NxT[row, start:end])
        assert text == pairs[arrays.rows_N[row]].chosen
