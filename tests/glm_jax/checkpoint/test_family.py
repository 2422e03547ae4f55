"""The whole family: in and out under every naming and layout, and onto a mesh."""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import AxisType

from glm_jax import generate
from glm_jax.checkpoint.pretrained import load_pretrained, save_pretrained
from glm_jax.errors import InputError
from glm_jax.mesh import MeshConfig, make_mesh

EXPERTS = {
    "model_type": "glm4_moe", "n_routed_experts": 8, "num_experts_per_tok": 3,
    "n_shared_experts": 1, "moe_intermediate_size": 24, "first_k_dense_replace": 1,
    "num_hidden_layers": 3,
}  # fmt: skip
FAMILIES = {"glm": {}, "glm4": {"model_type": "glm4"}, "glm4_moe": EXPERTS}
TOKENS = np.random.default_rng(0).integers(8, 50, (2, 24), np.int32)
family = pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES)


def tensors(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= safetensors.numpy.load_file(file)
    return found


def assert_same_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def change_config(folder, **changes):
    values = json.loads((folder / "config.json").read_text()) | changes
    values = {key: value for key, value in values.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(values))


def theirs(config_class, **changes):
    """A model of transformers with random weights, saved by transformers."""
    torch = pytest.importorskip("torch")
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{config_class}Config")(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, pad_token_id=3,
        eos_token_id=[0, 7], initializer_range=0.3, **changes,
    )  # fmt: skip
    model = getattr(transformers, f"{config_class}ForCausalLM")(config).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_()
    return torch, model


@pytest.mark.parametrize(
    ("config_class", "changes"),
    [
        ("Glm", {}),
        ("Glm4", {"attention_bias": False}),
        ("Glm4", {"attention_bias": True}),
        (
            "Glm4Moe",
            {
                "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
                "moe_intermediate_size": 24, "use_qk_norm": True, "attention_bias": True,
            },
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_their_checkpoint_in_and_out(tmp_path, config_class, changes, shard):
    """What transformers wrote is read, answers alike, and is written back bit for bit."""
    torch, reference = theirs(config_class, **changes)
    reference.save_pretrained(tmp_path / "theirs", max_shard_size=shard)
    model = load_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        expected = reference(torch.tensor(TOKENS), output_hidden_states=True)
        answers = reference.generate(
            torch.tensor(TOKENS), max_new_tokens=20, do_sample=False, eos_token_id=None,
        )  # fmt: skip
    assert expected.logits.std() > 0.1
    np.testing.assert_allclose(model(TOKENS), expected.logits.numpy(), atol=5e-5)
    states = model.hidden_states(TOKENS)
    for ours, their in zip(states[:-1], expected.hidden_states[:-1], strict=True):
        np.testing.assert_allclose(ours, their.numpy(), atol=5e-5)
    out = generate(model, TOKENS, stop_ids=())
    np.testing.assert_array_equal(out.tokens, answers[:, TOKENS.shape[1] :].numpy())
    save_pretrained(model, tmp_path / "ours")
    assert_same_tensors(tensors(tmp_path / "ours"), tensors(tmp_path / "theirs"))


@family
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_kept(tiny, tmp_path, changes, dtype):
    """And the correction of the router stays float32."""
    save_pretrained(tiny(**changes), tmp_path / "full")
    save_pretrained(load_pretrained(tmp_path / "full", dtype=dtype), tmp_path / "half")
    found, full = tensors(tmp_path / "half"), tensors(tmp_path / "full")
    expected = {
        name: value if "correction" in name else value.astype(dtype) for name, value in full.items()
    }
    assert_same_tensors(found, expected)
    save_pretrained(load_pretrained(tmp_path / "half", dtype=None), tmp_path / "again")
    assert_same_tensors(tensors(tmp_path / "again"), found)


@family
def test_layout_of_transformers_4(tiny, tmp_path, changes):
    """Rotary numbers at the top level, `torch_dtype`, one expert a tensor."""
    model = tiny(rope_theta=5e5, **changes)
    save_pretrained(model, tmp_path)
    change_config(tmp_path, rope_parameters=..., dtype=..., torch_dtype="float32")
    np.testing.assert_array_equal(load_pretrained(tmp_path)(TOKENS), model(TOKENS))


def test_experts_in_one_tensor(tiny, tmp_path):
    """As transformers 5 holds them in memory."""
    model = tiny(**EXPERTS)
    save_pretrained(model, tmp_path)
    found = tensors(tmp_path)
    for layer in (1, 2):
        own = f"model.layers.{layer}.mlp.experts"
        gate, up, down = (
            np.stack([found.pop(f"{own}.{i}.{z}_proj.weight") for i in range(8)])
            for z in ("gate", "up", "down")
        )
        found |= {f"{own}.gate_up_proj": np.concatenate([gate, up], 1), f"{own}.down_proj": down}
    safetensors.numpy.save_file(found, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load_pretrained(tmp_path)(TOKENS), model(TOKENS))


def test_what_is_known_to_mean_nothing_is_ignored_and_said(tiny, tmp_path, caplog):
    model = tiny(**EXPERTS)
    save_pretrained(model, tmp_path)
    extra = {
        "model.layers.3.eh_proj.weight": np.zeros((4, 4), np.float32),
        "model.layers.3.self_attn.rotary_emb.inv_freq": np.zeros(2, np.float32),
    }
    safetensors.numpy.save_file(tensors(tmp_path) | extra, tmp_path / "model.safetensors")
    with caplog.at_level(logging.WARNING, "glm_jax"):
        again = load_pretrained(tmp_path)
    assert "ignored 2 tensors, such as model.layers.3." in caplog.text
    np.testing.assert_array_equal(again(TOKENS), model(TOKENS))
    extra = {"model.layers.2.eh_proj.weight": np.zeros((4, 4), np.float32)}
    safetensors.numpy.save_file(tensors(tmp_path) | extra, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"unexpected model\.layers\.2\.eh_proj\.weight"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("head", ["lm", "reward"])
def test_chatglm_naming(tiny, tmp_path, head):
    model = tiny(head, rope_theta=5e5)
    save_pretrained(model, tmp_path / "released", naming="chatglm")
    found = tensors(tmp_path / "released")
    layer = "transformer.encoder.layers.1"
    assert found[f"{layer}.self_attention.query_key_value.weight"].shape == (64, 32)
    assert found[f"{layer}.mlp.dense_h_to_4h.weight"].shape == (96, 32)
    again = load_pretrained(tmp_path / "released")
    assert again.head_kind == head
    np.testing.assert_array_equal(again(TOKENS), model(TOKENS))
    if head == "reward":
        found["classifier_head.bias"] += 1
        safetensors.numpy.save_file(found, tmp_path / "released/model.safetensors")
        with pytest.raises(InputError, match=r"classifier_head\.bias is not zero"):
            load_pretrained(tmp_path / "released")


@pytest.mark.parametrize("changes", [{"model_type": "glm4"}, EXPERTS, {"head_dim": 12,
    "partial_rotary_factor": 0.25}], ids=["glm4", "glm4_moe", "a quarter rotated"])  # fmt: skip
def test_chatglm_naming_is_for_its_models(tiny, tmp_path, changes):
    with pytest.raises(InputError, match="naming 'chatglm' is for models of type glm"):
        save_pretrained(tiny(**changes), tmp_path / "model", naming="chatglm")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inner_hidden_size": 4}, "is ChatGLM-6B, the first"),
        ({"multi_query_attention": False}, "multi_query_attention is False"),
        ({"add_bias_linear": True}, "add_bias_linear is True"),
        ({"quantization_bit": 4}, "quantization_bit is 4"),
        ({"pre_seq_len": 128}, "pre_seq_len is 128"),
        ({"rmsnorm": False}, "rmsnorm is False"),
        ({"rope_ratio": "1"}, "'rope_ratio' should be a positive number, got '1'"),
        ({"kv_channels": ...}, "the key 'kv_channels' is missing"),
    ],
)
def test_other_models_under_chatglms_name_are_refused(tiny, tmp_path, changes, message):
    save_pretrained(tiny(), tmp_path, naming="chatglm")
    change_config(tmp_path, **changes)
    with pytest.raises(InputError) as error:
        load_pretrained(tmp_path)
    assert str(tmp_path / "config.json") in str(error.value) and message in str(error.value)


@family
def test_a_reward_model_of_every_family_comes_back(tiny, tmp_path, changes):
    model = tiny("reward", **changes)
    save_pretrained(model, tmp_path)
    np.testing.assert_array_equal(load_pretrained(tmp_path)(TOKENS), model(TOKENS))
    values = load_pretrained(tmp_path, head="value")(TOKENS)
    np.testing.assert_allclose(values[:, -1], model(TOKENS), atol=1e-6)


@pytest.mark.parametrize(("saved", "wanted"), [("lm", "reward"), ("lm", "value"), ("reward", "lm")])
def test_a_head_is_never_made_up(tiny, tmp_path, saved, wanted):
    save_pretrained(tiny(saved), tmp_path)
    with pytest.raises(InputError, match=f"has the head '{saved}', but '{wanted}' is needed"):
        load_pretrained(tmp_path, head=wanted)


@family
@pytest.mark.parametrize("shape", [(8, 1), (2, 4), (1, 2)])
def test_onto_a_mesh(tiny, tmp_path, changes, shape):
    """The same weights in shards: a device holds its part and no more."""
    model = tiny(vocab_size=52, **changes)
    save_pretrained(model, tmp_path)
    fsdp, tensor = shape
    config = MeshConfig(fsdp=fsdp, tensor=tensor)
    mesh = make_mesh(config, [model.config], jax.devices()[: config.devices])
    sharded = load_pretrained(tmp_path, mesh=mesh)
    for own, whole in zip(jax.tree.leaves(sharded), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(own, whole)
    q = sharded.blocks.q[...]
    held = q.addressable_shards[0].data.shape
    assert held == (q.shape[0], 32 // shape[0], 4 // shape[1], 8)
    logits = jax.jit(lambda model: model(TOKENS))(sharded)
    np.testing.assert_allclose(logits, model(TOKENS), atol=2e-5)


def test_a_mesh_that_does_not_divide_is_refused_by_name(tiny, tmp_path):
    save_pretrained(tiny(intermediate_size=50), tmp_path)
    mesh = jax.make_mesh((4,), ("tensor",), (AxisType.Auto,), devices=jax.devices()[:4])
    with pytest.raises(InputError, match=r"splits ffn 4 ways \(tensor\), which does not divide"):
        load_pretrained(tmp_path, mesh=mesh)


def test_unknown_dtype(tiny, tmp_path):
    save_pretrained(tiny(), tmp_path)
    with pytest.raises(InputError, match="dtype must be one of float32, bfloat16, float16 or None"):
        load_pretrained(tmp_path, dtype="int8")


@family
def test_gradients_of_a_fixed_weight_are_zero(tiny, changes):
    """All others move; the router's correction has none."""
    model = tiny(**changes)
    gradients = jax.grad(lambda model: jnp.sum(jnp.square(model(TOKENS))))(model)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        moves = float(jnp.abs(leaf).max()) > 0
        assert moves != ("router_bias" in jax.tree_util.keystr(path)), path
