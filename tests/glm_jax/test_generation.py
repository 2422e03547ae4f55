"""The plain function `generate`, and `stream`: against the model without a cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax import generate, generation
from glm_jax.errors import InputError
from glm_jax.sampling import Sampling

KEY = jax.random.key(0)
ROWS = [[5, 2, 9, 11, 4], [8], [3, 0, 7, 1, 1, 6, 2, 40]]  # stop and pad tokens among them
REAL = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1, 0], [1] + [0] * 9, [0, 0] + [1] * 8])  # as ROWS
FREE = {"stop_ids": ()}


def padded(side: str, noise: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """ROWS in ten columns, padded on one side or as REAL says, with noise under the pads."""
    mask = REAL.astype(bool)
    if side != "mixed":
        mask = np.sort(mask, axis=1)[:, :: 1 if side == "left" else -1]
    tokens = np.random.default_rng(noise).integers(50, size=mask.shape)
    tokens[mask] = np.concatenate(ROWS)
    return tokens, mask


@pytest.fixture(scope="module")
def expected(tiny, outputs) -> tuple[np.ndarray, np.ndarray]:
    """Twenty greedy tokens of each row, each from the whole model anew; their log-probs."""
    tokens, log_probs = [], []
    for row in ROWS:
        ids, mask = np.zeros((1, 28), np.int32), np.zeros((1, 28), bool)
        ids[0, : len(row)] = row
        mask[0, : len(row)] = True
        for _ in range(20):
            end = mask.sum()
            scores = jax.nn.log_softmax(outputs(tiny(), ids, mask)[0, end - 1])
            ids[0, end : end + 1], mask[0, end] = scores.argmax(), True
            log_probs.append(float(scores.max()))
        tokens.append(ids[0, len(row) : len(row) + 20])
    return np.stack(tokens), np.reshape(log_probs, (3, 20))


@pytest.mark.parametrize("side", ["left", "right", "mixed"])
def test_greedy_answers_are_those_of_the_model_without_cache_and_pads(tiny, expected, side):
    model = tiny(eos_token_id=(27,))  # which is in every row
    for noise in range(2):
        out = generate(model, *padded(side, noise), stop_ids=())
        np.testing.assert_array_equal(out.tokens, expected[0])
        np.testing.assert_allclose(out.log_probs, expected[1], atol=1e-5)
    assert (expected[0] == 27).any(axis=1).all()
    assert out.finish_reason.tolist() == ["length"] * 3 and out.mask.all()


def test_rows_need_no_mask(tiny, expected):
    for row, tokens, log_probs in zip(ROWS, *expected, strict=True):
        out = generate(tiny(), [row], stop_ids=())
        np.testing.assert_array_equal(out.tokens[0], tokens)
        np.testing.assert_allclose(out.log_probs[0], log_probs, atol=1e-5)


@pytest.mark.parametrize("kind", ["int64", "uint8", "jax", "lists"])
def test_any_integers_and_masks_of_0_and_1(tiny, expected, kind):
    ids, mask = padded("left")
    model = tiny(pad_token_id=1000)  # pads need not be tokens at all
    given = {
        "int64": lambda: (np.where(mask, ids, -100), mask.astype(np.int64)),
        "uint8": lambda: (ids.astype(np.uint8), mask.astype(np.float32)),
        "jax": lambda: (jnp.asarray(ids, jnp.int32), jnp.asarray(mask)),
        "lists": lambda: (ids.tolist(), mask.tolist()),
    }[kind]()
    out = generate(model, *given, max_new_tokens=3, stop_ids=np.array([], int))
    assert out.tokens.dtype == jnp.int32 and out.log_probs.dtype == jnp.float32
    np.testing.assert_array_equal(out.tokens, expected[0][:, :3])


def test_stop_ids(tiny, expected):
    """None: those of the model; several; the token itself is kept, and pads come after it."""
    tokens, log_probs = expected
    stops = tokens[0, 0].item(), tokens[1, 2].item(), 1000
    ends = [np.flatnonzero(np.isin(row, stops))[:1].tolist() for row in tokens]
    assert ends == [[0], [2], []]
    ways = [
        generate(tiny(), *padded("left"), stop_ids=stops),
        generate(tiny(eos_token_id=stops), *padded("right")),
    ]
    for out in ways:
        for i, end in enumerate(ends):
            n = end[0] + 1 if end else 20
            np.testing.assert_array_equal(out.tokens[i, :n], tokens[i, :n])
            np.testing.assert_allclose(out.log_probs[i, :n], log_probs[i, :n], atol=1e-5)
            assert (out.tokens[i, n:] == 3).all() and (out.log_probs[i, n:] == 0).all()
            assert out.finish_reason[i] == ("stop" if end else "length")


def end_of_repetition(tokens: list[int], n: int, times: int) -> int | None:
    """The length at which the last n tokens stand there for the given time."""
    for length in range(n, len(tokens) + 1):
        windows = [tokens[i : i + n] for i in range(length - n + 1)]
        if windows.count(tokens[length - n : length]) == times:
            return length
    return None


@pytest.mark.parametrize(("n", "times"), [(1, 4), (2, 2), (3, 2)])
def test_an_answer_that_repeats_itself_ends(tiny, n, times):
    model = tiny(vocab_size=12, eos_token_id=(11,))
    prompts = np.random.default_rng(0).integers(12, size=(32, 2))
    settings = {"max_new_tokens": 24, "temperature": 0.7, "key": KEY}
    free = generate(model, prompts, **settings)
    out = generate(model, prompts, repeat_ngram=n, repeat_times=times, **settings)
    for i, length in enumerate(np.asarray(free.lengths).tolist()):
        end = end_of_repetition(free.tokens[i, :length].tolist(), n, times)
        # a stop token that is also the repetition is a stop
        repetition = end is not None and not (end == length and free.finish_reason[i] == "stop")
        kept = end if repetition else length
        assert out.finish_reason[i] == ("repetition" if repetition else free.finish_reason[i])
        np.testing.assert_array_equal(out.tokens[i, :kept], free.tokens[i, :kept])
        np.testing.assert_array_equal(out.mask[i], np.arange(24) < kept)
        assert (out.tokens[i, kept:] == 3).all() and (out.log_probs[i, kept:] == 0).all()
    assert np.sum(out.finish_reason == "repetition") > 3


def test_chance_is_the_keys_alone(tiny):
    def tokens(key, **settings):
        out = generate(tiny(), *padded("left"), temperature=1.0, key=key, **settings, **FREE)
        return out.tokens.tolist()

    assert tokens(KEY) == tokens(jax.random.PRNGKey(0)) != tokens(jax.random.key(1))
    assert tokens(KEY, top_k=1) == tokens(KEY, top_p=1e-6) == tokens(jax.random.key(1), top_k=1)


def test_repeated_calls_are_traced_once(tiny, monkeypatch):
    traced, rollout = [], generation.rollout
    monkeypatch.setattr(generation, "rollout", lambda *a: traced.append(a) or rollout(*a))
    for seed in range(3):
        tokens = np.random.default_rng(seed).integers(50, size=(2, 3 + 2))
        settings = {"max_new_tokens": 2, "temperature": 0.9, "top_p": 0.9, "top_k": 40}
        generate(tiny(), tokens, tokens > -1, key=jax.random.key(seed), **settings)
        generate(tiny(seed=seed), tokens.tolist(), key=jax.random.key(seed), **settings)
    assert len(traced) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("width", [5, 12])
def test_a_stream_is_an_answer_token_by_token(tiny, temperature, width):
    ends = set()
    for seed, row in enumerate([ROWS[0], ROWS[1], [6, 6, 6], [1]]):
        model, key = tiny(vocab_size=15), jax.random.key(seed)
        row = [token % 15 for token in row]
        out = generate(model, [row], max_new_tokens=9, temperature=temperature, key=key)
        sampling = Sampling(max_new_tokens=9, temperature=temperature)
        tokens = list(generation.stream(model, row, sampling, jax.random.fold_in(key, 0), width))
        assert tokens == out.tokens[0, : out.lengths[0]].tolist()
        ends.add(out.finish_reason[0])
    assert temperature == 0 or ends == {"stop", "length"}


BAD = {
    "rank": ([1, 2], {}, r"\[B, T\]"),
    "ragged": ([[1, 2], [3]], {}, r"\[B, T\]"),
    "floats": ([[1.0]], {}, "integers"),
    "no rows": (np.zeros((0, 3), int), {}, "shape"),
    "no columns": (np.zeros((2, 0), int), {}, "row 0"),
    "mask's shape": ([[1, 2]], {"attention_mask": [[1]]}, "attention_mask.*shape"),
    "mask's values": ([[1, 2]], {"attention_mask": [[2, 1]]}, "0 and 1"),
    "only pads": ([[1], [2]], {"attention_mask": [[1], [0]]}, "row 1"),
    "too large": ([[1, 50]], {}, r"in \[0, 50\), got 50"),
    "negative": ([[1, -1]], {}, "got -1"),
    "no key": ([[1]], {"temperature": 0.5}, "key"),
    "keys": ([[1]], {"temperature": 0.5, "key": jax.random.split(KEY, 2)}, "key"),
    "temperature": ([[1]], {"temperature": -1.0}, "temperature"),
    "top_p 0": ([[1]], {"top_p": 0.0}, "top_p"),
    "top_p 2": ([[1]], {"top_p": 2.0}, "top_p"),
    "top_k": ([[1]], {"top_k": -1}, "top_k"),
    "max_new_tokens": ([[1]], {"max_new_tokens": 0}, "max_new_tokens"),
    "repeat_times": ([[1]], {"repeat_ngram": 2, "repeat_times": 1}, "repeat_times"),
}


@pytest.mark.parametrize(("ids", "more", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_said(tiny, ids, more, message):
    with pytest.raises(InputError, match=message):
        generate(tiny(), ids, **more)


def test_only_language_models_write(tiny):
    with pytest.raises(InputError, match="head"):
        generate(tiny("value"), [[1]])
