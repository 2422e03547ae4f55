"""Models on disk: exact, whole, and refused with a reason."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from glm_jax.checkpoint import pretrained
from glm_jax.checkpoint.pretrained import load_pretrained, save_pretrained
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer

TOKENS = np.arange(40, dtype=np.int32).reshape(2, 20)


def assert_equal(model, other):
    assert (model.config, model.head_kind) == (other.config, other.head_kind)
    assert jax.tree.structure(model) == jax.tree.structure(other)
    for w, v in zip(jax.tree.leaves(model), jax.tree.leaves(other), strict=True):
        assert w.dtype == v.dtype
        np.testing.assert_array_equal(w, v)


@pytest.mark.parametrize(
    ("head", "changes"),
    [
        ("lm", {}),
        ("reward", {"attention_bias": False, "rope_theta": 5e6, "eos_token_id": (1, 2, 3)}),
        ("lm", {"num_hidden_layers": 1}),
        ("reward", {"num_hidden_layers": 5, "head_dim": 9, "rms_norm_eps": 1.5625e-7}),
    ],
)
def test_a_model_comes_back_bit_equal(tiny, outputs, tmp_path, head, changes):
    model = tiny(head, **changes)
    save_pretrained(model, tmp_path / "new" / "model")
    again = load_pretrained(tmp_path / "new" / "model")
    assert_equal(model, again)
    mask = np.ones_like(TOKENS, bool)
    np.testing.assert_array_equal(outputs(model, TOKENS, mask), outputs(again, TOKENS, mask))


def test_bfloat16_stays_bfloat16(tiny, tmp_path):
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), tiny())
    save_pretrained(half, tmp_path / "model")
    assert_equal(half, load_pretrained(tmp_path / "model", dtype=None))
    assert_equal(half, load_pretrained(tmp_path / "model", dtype="bfloat16"))
    assert json.loads((tmp_path / "model/config.json").read_text())["dtype"] == "bfloat16"


def test_a_folder_holds_the_tokenizer_and_nothing_else(tiny, tmp_path):
    tokenizer = Tokenizer.word_level(["good", "morning"])
    save_pretrained(tiny(), tmp_path / "model", tokenizer)
    assert Tokenizer.load(tmp_path / "model").fingerprint == tokenizer.fingerprint
    names = {file.name for file in tmp_path.rglob("*")}
    weights = {"model", "config.json", "model.safetensors"}
    assert names == weights | {"tokenizer.json", "tokenizer_config.json"}


def test_saving_again_replaces_the_model(tiny, tmp_path):
    save_pretrained(tiny(), tmp_path / "model", Tokenizer.word_level(["good"]))
    save_pretrained(tiny("reward", seed=1), tmp_path / "model")
    assert_equal(load_pretrained(tmp_path / "model"), tiny("reward", seed=1))
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_other_things_is_left_alone(tiny, tmp_path):
    (tmp_path / "home").mkdir()
    save_pretrained(tiny(), tmp_path / "home")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis.txt").write_text("chapter 1")
    with pytest.raises(InputError, match="work: holds other things than a model"):
        save_pretrained(tiny(), tmp_path / "work")
    assert (tmp_path / "work/thesis.txt").read_text() == "chapter 1"


@pytest.mark.parametrize("before", [True, False], ids=["over another", "anew"])
@pytest.mark.parametrize("part", ["weights", "tokenizer"])
def test_a_failure_while_saving_changes_nothing(tiny, tmp_path, monkeypatch, before, part):
    def fail(*args):
        (Path(args[0]) / "model.safetensors").write_bytes(b"half") if part == "weights" else None
        raise OSError(28, "No space left on device")

    path, tokenizer = tmp_path / "model", Tokenizer.word_level(["good"])
    if before:
        save_pretrained(tiny(), path)
    with monkeypatch.context() as patch:
        target = (pretrained, "write_safetensors") if part == "weights" else (Tokenizer, "save")
        patch.setattr(*target, fail)
        with pytest.raises(OSError, match="No space left"):
            save_pretrained(tiny(seed=1), path, tokenizer)
    assert [file.name for file in tmp_path.iterdir()] == ["model"] * before
    if before:
        assert_equal(load_pretrained(path), tiny())
    save_pretrained(tiny(seed=1), path, tokenizer)
    assert_equal(load_pretrained(path), tiny(seed=1))
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


Q = "model.layers.1.self_attn.q_proj.weight"
GATE_UP = "model.layers.0.mlp.gate_up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({Q: None}, f"missing {Q}"),
        ({"extra.weight": np.zeros(2, np.float32)}, "unexpected extra.weight"),
        (
            {GATE_UP: np.zeros((95, 32), np.float32)},
            f"{GATE_UP} has shape (95, 32), expected (96, 32)",
        ),
        ({Q: np.zeros((32, 32, 1), np.float32)}, f"{Q} has shape (32, 32, 1), expected (32, 32)"),
        ({"lm_head.weight": None}, "missing lm_head.weight"),
        ({"lm_head.weight": None, Q: None}, f"missing lm_head.weight; missing {Q}"),
    ],
    ids=["missing", "extra", "misshapen", "another rank", "no head", "two at once"],
)
def test_tensors_that_do_not_fit_are_named(tiny, tmp_path, change, message):
    save_pretrained(tiny(), tmp_path / "model")
    file = tmp_path / "model/model.safetensors"
    tensors = safetensors.numpy.load_file(file) | change
    safetensors.numpy.save_file({k: v for k, v in tensors.items() if v is not None}, file)
    with pytest.raises(InputError) as error:
        load_pretrained(tmp_path / "model")
    assert str(tmp_path / "model") in str(error.value) and message in str(error.value)


def test_a_missing_score_head_is_never_made_up(tiny, tmp_path):
    """A language model under a reward model's config.json is refused."""
    save_pretrained(tiny(), tmp_path / "model")
    save_pretrained(tiny("reward"), tmp_path / "rewards")
    config = (tmp_path / "rewards/config.json").read_text()
    (tmp_path / "model/config.json").write_text(config)
    with pytest.raises(InputError, match=r"missing score\.weight; unexpected lm_head\.weight"):
        load_pretrained(tmp_path / "model")


@pytest.mark.parametrize("size", [0, 4, 200, -1])
def test_a_truncated_file_is_refused(tiny, tmp_path, size):
    save_pretrained(tiny(), tmp_path / "model")
    file = tmp_path / "model/model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(InputError, match=r"model\.safetensors: "):
        load_pretrained(tmp_path / "model")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("\xff", "not JSON"),
        ("", "not JSON"),
        ("[]", "expected an object, got list"),
        ("{}", "architectures is None, expected one of ['GlmForCausalLM'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is supported"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True; only False is supported"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling is {'type': 'yarn'}"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ({"architectures": ["LlamaForCausalLM"]}, "architectures is ['LlamaForCausalLM']"),
        ({"architectures": []}, "architectures is []"),
        ({"architectures": 5}, "architectures is 5"),
        ({"architectures": "GlmForCausalLM"}, "architectures is GlmForCausalLM"),
        ({"hidden_size": "32"}, "'hidden_size' should be a valid integer, got '32'"),
        ({"eos_token_id": [0, "x"]}, "'eos_token_id.1' should be a valid integer, got 'x'"),
        ({"num_key_value_heads": 3}, "num_attention_heads must be a multiple of"),
        ({"rms_norm_eps": None}, "'rms_norm_eps' should be a valid number, got None"),
        ({"hidden_size": ...}, "the key 'hidden_size' is missing"),
        ({"rms_norm_eps": ...}, "the key 'rms_norm_eps' is missing"),
        ({"rope_parameters": 5}, "'rope_parameters' should be an object, got 5"),
    ],
)
def test_a_config_that_is_none_is_refused(tiny, tmp_path, text, message):
    save_pretrained(tiny(), tmp_path / "model")
    file = tmp_path / "model/config.json"
    if isinstance(text, dict):
        values = json.loads(file.read_text()) | text
        text = json.dumps({k: v for k, v in values.items() if v is not ...})
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as error:
        load_pretrained(tmp_path / "model")
    assert str(file) in str(error.value) and message in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tiny, tmp_path, name):
    save_pretrained(tiny(), tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    missing = {"config.json": "no such file", "model.safetensors": "no weights here: expected"}
    with pytest.raises(InputError, match=missing[name]):
        load_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        load_pretrained(tmp_path / "nowhere")
