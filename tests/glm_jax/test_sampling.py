"""Top-k and top-p: the same tokens as in transformers, drawn as often as they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from glm_jax.configuration import parse
from glm_jax.errors import InputError
from glm_jax.sampling import Sampling, draw, top_k, top_p

SETTINGS = [(0, 0.9), (0, 0.3), (5, 1.0), (5, 0.7), (1, 0.5), (40, 0.999), (100, 0.05)]


def reference(logits_BxV: np.ndarray, temperature: float, k: int, p: float) -> np.ndarray:
    """What transformers makes of logits before it draws."""
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers.generation.logits_process")
    scores = torch.tensor(logits_BxV)
    chain = [warpers.TemperatureLogitsWarper(temperature)]
    chain += [warpers.TopKLogitsWarper(k)] if k else []
    chain += [warpers.TopPLogitsWarper(p)] if p < 1 else []
    for warper in chain:
        scores = warper(None, scores)
    return scores.numpy()


@pytest.mark.parametrize(("k", "p"), SETTINGS)
def test_the_same_tokens_stay_as_in_transformers(k, p):
    logits = np.random.default_rng(0).normal(0, 3, (64, 50)).astype(np.float32)
    expected = reference(logits, 0.7, k, p)
    kept = jax.jit(lambda x: top_p(top_k(x / 0.7, k), p))(logits)
    np.testing.assert_allclose(kept, expected, rtol=1e-6)
    assert np.isfinite(kept).any(1).all() and not np.isfinite(kept).all(1).any()


@pytest.mark.parametrize(("k", "p"), SETTINGS[:4])
def test_tokens_are_drawn_as_often_as_they_should_be(k, p):
    """Their log-probabilities are those of the model, not of what is left of it."""
    n, temperature = 20_000, 1.3
    logits = np.random.default_rng(1).normal(0, 2, (1, 30)).astype(np.float32)
    tokens, log_probs = jax.jit(draw, static_argnums=3)(
        jnp.tile(logits, (n, 1)), jax.random.split(jax.random.key(0), n), jnp.zeros(n, jnp.int32),
        Sampling(temperature=temperature, top_k=k, top_p=p),
    )  # fmt: skip
    probs = np.exp(jax.nn.log_softmax(reference(logits, temperature, k, p)[0].astype(np.float64)))
    counts = np.bincount(tokens, minlength=30)
    assert (counts[probs == 0] == 0).all() and (probs > 0).sum() > 2
    found, expected = counts[probs > 0], n * probs[probs > 0]
    assert stats.chisquare(found, expected, sum_check=False).pvalue > 0.01
    whole = jax.nn.log_softmax(logits[0] / np.float32(temperature))
    np.testing.assert_allclose(log_probs, whole[tokens], atol=1e-6)


def test_ties_stay_together_and_one_token_always_stays():
    logits = jnp.log(jnp.array([[0.1, 0.2, 0.2, 0.2, 0.3]]))

    def kept(x) -> list[int]:
        return np.flatnonzero(np.isfinite(x[0])).tolist()

    assert kept(top_k(logits, 2)) == [1, 2, 3, 4] and kept(top_k(logits, 1)) == [4]
    assert kept(top_p(logits, 0.4)) == [1, 2, 3, 4] and kept(top_p(logits, 1e-9)) == [4]
    assert kept(top_p(logits, 0.95)) == [0, 1, 2, 3, 4]
    assert kept(top_k(logits, 9)) == kept(top_p(logits, 1.0)) == [0, 1, 2, 3, 4]


def test_no_work_is_done_that_was_not_asked_for():
    def program(**settings) -> str:
        shapes = jnp.zeros((2, 9)), jax.random.split(jax.random.key(0), 2), jnp.zeros(2, jnp.int32)
        return jax.jit(draw, static_argnums=3).lower(*shapes, Sampling(**settings)).as_text()

    noise = program().count("hlo.while")
    assert program(temperature=0.0).count("hlo.while") == 0
    assert program(top_p=0.5).count("hlo.while") == noise + 1
    assert "hlo.top_k" in program(top_k=3) and "hlo.top_k" not in program()


WRONG = [
    {"max_new_tokens": 0}, {"temperature": -0.1}, {"temperature": float("nan")}, {"top_k": -1},
    {"top_p": 0.0}, {"top_p": 1.5}, {"stop_ids": ["a"]}, {"repeat_ngram": -1}, {"repeat_times": 1},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_settings_that_draw_nothing_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        parse(Sampling, wrong, "here")
