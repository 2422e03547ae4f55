"""A model with the tokenizer it speaks with."""

import pytest

from glm_jax import Tokenizer, load_pretrained, save_pretrained
from glm_jax.errors import InputError
from glm_jax.train.policy import load_policy


@pytest.fixture
def saved(tiny, tmp_path):
    def save(words: int, **changes) -> str:
        tokenizer = Tokenizer.word_level([f"w{i}" for i in range(words)])
        save_pretrained(tiny(**changes), tmp_path / "model", tokenizer)
        return str(tmp_path / "model")

    return save


def test_a_turn_ends_as_the_dialogue_format_says(saved):
    """Also where config.json names fewer tokens, as ChatGLM3's does; its own come first."""
    path = saved(words=5, vocab_size=40, eos_token_id=(39,))
    model, tokenizer = load_policy(path)
    assert model.config.eos_token_id == (39, *tokenizer.stop_ids)
    assert load_pretrained(path).config.eos_token_id == (39,)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(saved):
    with pytest.raises(InputError, match="the tokenizer has 48 tokens, but the model only 40"):
        load_policy(saved(words=40, vocab_size=40))
