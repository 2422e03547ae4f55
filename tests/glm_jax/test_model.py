"""The GLM against transformers' own, and what each output may depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from glm_jax.checkpoint.pretrained import load_pretrained, save_pretrained
from glm_jax.model import GLM, with_head
from glm_jax.sight import causal, positions

EXPERTS = {
    "model_type": "glm4_moe", "n_routed_experts": 8, "num_experts_per_tok": 3,
    "n_shared_experts": 1, "moe_intermediate_size": 24, "first_k_dense_replace": 1,
}  # fmt: skip
FAMILIES = {"glm": {}, "glm4": {"model_type": "glm4"}, "glm4_moe": EXPERTS}
VARIANTS = {
    "plain": {},
    "no attention bias": {"attention_bias": False},
    "one group": {"num_key_value_heads": 1},
    "a group a head": {"num_key_value_heads": 4},
    "wide heads": {"head_dim": 12},
    "odd heads": {"head_dim": 9},
    "all rotated": {"partial_rotary_factor": 1.0},
    "a quarter rotated": {"partial_rotary_factor": 0.25},
    "long context": {"rope_theta": 5e6},
    "small eps": {"rms_norm_eps": 1.5625e-7},
    "large eps": {"rms_norm_eps": 0.5},
    "one layer": {"num_hidden_layers": 1},
    "layers in a loop": {"num_hidden_layers": 6},
    "an odd rotary dimension": {"head_dim": 10},
    "odd sizes": {"hidden_size": 27, "intermediate_size": 37, "vocab_size": 53, "head_dim": 7},
    "sandwich": {"model_type": "glm4"},
    "sandwich, no bias": {"model_type": "glm4", "attention_bias": False},
    "experts": EXPERTS,
    "experts, no bias": EXPERTS | {"attention_bias": False},
    "experts, queries and keys normed": EXPERTS | {"use_qk_norm": True},
    "experts in groups": EXPERTS | {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5},
    "experts, weights as they are": EXPERTS | {"norm_topk_prob": False, "n_shared_experts": 2},
    "experts everywhere": EXPERTS | {"first_k_dense_replace": 0, "num_hidden_layers": 6},
    "experts, odd": EXPERTS | {"head_dim": 9, "moe_intermediate_size": 12, "n_routed_experts": 7},
}

family = pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES)


def draw_tokens(*shape: int, seed: int = 0, vocab: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(vocab, size=shape, dtype=np.int32)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_logits_equal_those_of_transformers(tiny, outputs, tmp_path, changes):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model, tokens = tiny(**changes), draw_tokens(2, 256)
    save_pretrained(model, tmp_path / "model")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = reference(torch.tensor(tokens).long()).logits.numpy()
    logits = np.asarray(outputs(model, tokens, np.ones_like(tokens, bool)))
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits, expected, atol=5e-5)


@pytest.mark.parametrize("model_type", ["glm", "glm4"])
def test_scores_equal_those_of_transformers(tiny, outputs, tmp_path, model_type):
    """They are read at the last real token, here of right-padded rows."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    model, tokens = tiny("reward", model_type=model_type), 8 + draw_tokens(3, 20, vocab=42)
    lengths = np.array([20, 13, 1])
    mask = np.arange(20) < lengths[:, None]
    tokens = np.where(mask, tokens, model.config.pad_token_id).astype(np.int32)
    save_pretrained(model, tmp_path / "model")
    reference = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = reference(torch.tensor(tokens).long(), torch.tensor(mask).long()).logits.numpy()
    scores = np.asarray(outputs(model, tokens, mask))
    assert scores.shape == (3,) and expected.std() > 0.1
    np.testing.assert_allclose(scores, expected[:, 0], atol=5e-5)
    values = outputs(load_pretrained(tmp_path / "model", "value"), tokens, mask)
    np.testing.assert_allclose(values[np.arange(3), lengths - 1], scores, atol=1e-6)


def test_a_folder_of_transformers_loads(tiny, outputs, tmp_path):
    """It keeps the rotary numbers in `rope_parameters` alone."""
    torch = pytest.importorskip("torch")
    from transformers import GlmForCausalLM

    model = tiny(rope_theta=5e6, partial_rotary_factor=0.25, rms_norm_eps=1e-3)
    save_pretrained(model, tmp_path / "ours")
    reference = GlmForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    reference.save_pretrained(tmp_path / "theirs")
    again, tokens = load_pretrained(tmp_path / "theirs"), draw_tokens(1, 64)
    assert again.config == model.config
    ours = outputs(model, tokens, tokens >= 0)
    np.testing.assert_array_equal(outputs(again, tokens, tokens >= 0), ours)


@family
@pytest.mark.parametrize(
    ("width", "real"),
    [
        (26, range(20)),
        (26, range(6, 26)),
        (51, range(30, 50)),
        (26, [0, *range(2, 9), *range(12, 23), 25]),
    ],
    ids=["after", "before", "around", "between"],
)
def test_pads_change_no_real_logits(tiny, outputs, width, real, changes):
    """Whatever tokens stand under the mask, stop tokens and the pad token included."""
    model, tokens, real = tiny(**changes), draw_tokens(3, 20), list(real)
    padded, mask = draw_tokens(3, width, seed=1), np.zeros((3, width), bool)
    padded[:, real], mask[:, real] = tokens, True
    expected = outputs(model, tokens, np.ones_like(tokens, bool))
    logits = outputs(model, padded, mask)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[:, np.array(real)], expected, atol=2e-5)


def test_rows_do_not_see_each_other(tiny, outputs):
    """Rows of other lengths beside it change nothing, nor does a row without any token."""
    model, tokens = tiny(), draw_tokens(4, 12)
    mask = np.arange(12) >= np.array([[0], [5], [11], [12]])
    together = outputs(model, tokens, mask)
    assert np.isfinite(together).all()
    for i in range(3):
        alone = outputs(model, tokens[i : i + 1], mask[i : i + 1])
        np.testing.assert_allclose(together[i][mask[i]], alone[0][mask[i]], atol=2e-5)


@family
def test_an_output_depends_on_the_real_inputs_up_to_its_own(tiny, changes):
    """Causality, by gradient: which inputs does output t depend on?

    Each token stands once in the row and the head is not tied to the embedding, so row j of the
    embedding reaches the outputs through input j alone. Then d output_t / d embedding_j, the
    output being a random projection of the logits at t so that nothing cancels, is zero exactly
    where output t does not depend on input j: a masked score is lost in float32 before the
    softmax, and its weight is 0.0, not merely small. For real t that must be so for each later
    input (causality) and each pad, and for no other: an output sees all that came before it.
    Outputs at pads mean nothing and are not looked at.
    """
    model = tiny(**changes)
    mask = np.array([0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0], bool)
    T = len(mask)
    tokens = np.random.default_rng(0).permutation(model.config.vocab_size)[:T].astype(np.int32)
    projection = jax.random.normal(jax.random.key(0), (model.config.vocab_size,))

    def project(embedding):
        changed = jax.tree.map(lambda leaf: leaf, model)
        changed.embedding.set_value(embedding)
        return changed(jnp.asarray(tokens)[None], jnp.asarray(mask)[None])[0] @ projection

    def jacobian(embedding):  # one output at a time: ragged products have no rule for vmap
        return jax.lax.map(lambda y: jax.vjp(project, embedding)[1](y)[0], jnp.eye(T))

    jacobian_TxVxD = jax.jit(jacobian)(model.embedding[...])
    depends_TxT = np.any(np.asarray(jacobian_TxVxD)[:, tokens] != 0, axis=-1)
    expected_TxT = np.tril(np.ones((T, T), bool)) & mask[None, :]
    np.testing.assert_array_equal(depends_TxT[mask], expected_TxT[mask])


def test_positions_count_real_tokens():
    mask = jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 0]], bool)
    real = [p[m].tolist() for p, m in zip(positions(mask), mask, strict=True)]
    assert real == [[0, 1, 2], [0, 1, 2], [0, 1]]
    assert int(positions(mask).min()) >= 0 and int(positions(mask).max()) < 5


@family
def test_pieces_through_the_cache_equal_the_whole(tiny, changes):
    model, tokens = tiny(**changes), jnp.asarray(draw_tokens(3, 14))
    mask = jnp.arange(14)[None] >= jnp.array([[0], [3], [5]])
    expected = jax.jit(GLM.hidden)(model, tokens, mask)
    cache, at, seen, pieces = model.empty_cache(3, 14), positions(mask), causal(mask), []
    extend = jax.jit(GLM.extend)
    for piece in (slice(0, 6), slice(6, 7), slice(7, 8), slice(8, 14)):
        x, cache = extend(model, tokens[:, piece], at[:, piece], seen[:, piece], cache)
        pieces.append(x)
    x = np.concatenate(pieces, axis=1)
    np.testing.assert_allclose(x[mask], np.asarray(expected)[mask], atol=2e-5)


@family
def test_the_last_states_alone(tiny, changes, monkeypatch):
    """Unrolled, where the last layer computes no others, and in a loop over the layers."""
    model, tokens = tiny(**changes), jnp.asarray(draw_tokens(3, 14))
    mask = jnp.arange(14)[None] >= jnp.array([[0], [3], [5]])
    expected = jax.jit(GLM.hidden)(model, tokens, mask)[:, -5:]
    for unrolled in (12, 0):
        monkeypatch.setattr("glm_jax.stack.UNROLLED", unrolled)
        x = jax.jit(lambda m: m.hidden(tokens, mask, last=5))(model)
        np.testing.assert_allclose(x, expected, atol=2e-5)


def test_a_head_is_put_on_a_shared_trunk(tiny):
    """And a fresh head's scores have unit size, as a reward model's should at its start."""
    model = tiny(hidden_size=256)
    rewards = with_head(model, "reward", nnx.Rngs(5))
    assert rewards.head.shape == (256, 1) and rewards.head_kind == "reward"
    assert rewards.blocks is model.blocks and rewards.embedding is model.embedding
    x = jax.random.normal(jax.random.key(0), (100, 256))
    heads = [with_head(model, "reward", nnx.Rngs(seed)).outputs(x) for seed in range(20)]
    assert 0.9 < float(jnp.std(jnp.stack(heads))) < 1.1
    assert (model.head_kind, model.head.shape) == ("lm", (256, 50))


def test_a_bfloat16_model_gives_float32_logits(tiny, outputs):
    model, tokens = tiny(), draw_tokens(2, 16)
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), model)
    logits, mask = outputs(half, tokens, tokens >= 0), tokens >= 0
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, outputs(model, tokens, mask), atol=0.5)
