"""Checkpoints in ChatGLM's naming, and what the released code makes of them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from glm_jax import generate, load_pretrained, save_pretrained

GOLDEN = Path(__file__).parents[3] / "shared/golden"
pytestmark = pytest.mark.skipif(
    not GOLDEN.exists(), reason="the golden numbers are not part of the repository"
)


@pytest.fixture(params=["chatglm3-tiny", "glm4-9b-remote-tiny"])
def golden(request):
    folder = GOLDEN / request.param
    return folder, load_pretrained(folder), np.load(folder / "golden.npz")


def test_logits_and_hidden_states(golden):
    _, model, numbers = golden
    for case in ("plain", "long"):
        logits = model(numbers[f"{case}_input_ids"])
        np.testing.assert_allclose(logits, numbers[f"{case}_logits"], atol=5e-5)
    states = model.hidden_states(numbers["plain_input_ids"])
    np.testing.assert_allclose(states, numbers["plain_hidden_states"], atol=5e-5)


def test_left_padded_rows(golden):
    _, model, numbers = golden
    mask = numbers["pad_attention_mask"]
    logits = model(numbers["pad_input_ids"], attention_mask=mask)
    real = mask.astype(bool)
    np.testing.assert_allclose(logits[real], numbers["pad_logits"][real], atol=5e-5)


def test_greedy_tokens(golden):
    _, model, numbers = golden
    out = generate(model, numbers["pad_input_ids"], numbers["pad_attention_mask"], stop_ids=())
    np.testing.assert_array_equal(out.tokens, numbers["gen_tokens"])


def test_loss(golden):
    _, model, numbers = golden
    logits, labels = model(numbers["loss_input_ids"]), numbers["loss_labels"][:, 1:]
    with jax.numpy_dtype_promotion("standard"):
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits[:, :-1], jnp.maximum(labels, 0)
        )
    counted = labels != -100
    assert float(losses[counted].mean()) == pytest.approx(numbers["loss_value"].item(), abs=2e-5)


def test_there_and_back_is_bit_equal(golden, tmp_path):
    """Also through transformers' naming."""
    folder, model, _ = golden
    save_pretrained(model, tmp_path / "hf")
    save_pretrained(load_pretrained(tmp_path / "hf"), tmp_path / "again", naming="chatglm")
    expected = safetensors.numpy.load_file(folder / "model.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "again/model.safetensors")
    assert found.keys() == expected.keys()
    frequencies = "transformer.rotary_pos_emb.inv_freq"
    np.testing.assert_allclose(found.pop(frequencies), expected.pop(frequencies), rtol=1e-6)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def test_exported_to_transformers(golden, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    _, model, numbers = golden
    save_pretrained(model, tmp_path / "hf")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    with torch.no_grad():
        logits = reference(torch.tensor(numbers["long_input_ids"])).logits.numpy()
    np.testing.assert_allclose(logits, numbers["long_logits"], atol=5e-5)
