"""What is read off a model, and where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.model import GLM
from glm_jax.train.scoring import token_log_probs, token_values

scores_of = jax.jit(lambda model, tokens, mask: model(tokens, mask))
LENGTHS = np.array([10, 7, 1])


@pytest.fixture
def sharp(tiny):
    """sharp(head): weights large enough that every token counts."""

    def make(head: str) -> GLM:
        return jax.tree.map(lambda w: 8 * w, tiny(head))

    return make


def rows(left: int, right: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Three texts of LENGTHS tokens; `left` of a row's pads stand before it, noise in them."""
    width = 10 + left + right
    texts = np.random.default_rng(0).integers(20, size=(3, 10), dtype=np.int32)
    tokens = np.random.default_rng(seed).integers(20, size=(3, width), dtype=np.int32)
    mask = np.zeros((3, width), bool)
    for i, n in enumerate(LENGTHS):
        tokens[i, left : left + n] = texts[i, :n]
        mask[i, left : left + n] = True
    return jnp.asarray(tokens), jnp.asarray(mask)


def test_scores_are_read_at_the_last_real_token(sharp):
    model, (tokens, mask) = sharp("reward"), rows(0, 0)
    scores = scores_of(model, tokens, mask)
    expected = model.outputs(model.hidden(tokens, mask))[np.arange(3), LENGTHS - 1, 0]
    assert float(jnp.std(scores)) > 0.1
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize(("left", "right"), [(0, 5), (5, 0), (17, 2)])
def test_scores_depend_on_neither_pads_nor_other_rows(sharp, left, right):
    model = sharp("reward")
    expected = scores_of(model, *rows(0, 0))
    tokens, mask = rows(left, right, seed=left)
    np.testing.assert_allclose(scores_of(model, tokens, mask), expected, atol=1e-5)
    for i in range(3):
        alone = scores_of(model, tokens[i : i + 1], mask[i : i + 1])
        np.testing.assert_allclose(alone, expected[i : i + 1], atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_of_each_token_given_those_before(sharp, temperature):
    """Read one token at a time off the whole distribution, which sums to 1."""
    model, (tokens, mask) = sharp("lm"), rows(3, 0)
    found = jax.jit(token_log_probs, static_argnums=(3, 4))(model, tokens, mask, 4, temperature)
    logits = np.asarray(model(tokens, mask), np.float64) / temperature
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    width = tokens.shape[1]
    for column, t in enumerate(range(width - 4, width)):
        expected = np.log(probabilities[np.arange(3), t - 1, np.asarray(tokens[:, t])])
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-6, atol=1e-5)


def test_values_are_of_the_state_before_the_token(sharp):
    """The last token itself, which no state holds yet, changes none of them."""
    critic, (tokens, mask) = sharp("value"), rows(3, 0)
    values = token_values(critic, tokens, mask, 4)
    np.testing.assert_allclose(values, critic(tokens, mask)[:, -5:-1], atol=3e-5)
    other = tokens.at[:, -1].set((tokens[:, -1] + 1) % 20)
    np.testing.assert_array_equal(token_values(critic, other, mask, 4), values)
