"""The released models by name.

Values are those of the releases' own config.json, and of the published training scripts of GLM-4.5.
"""

import dataclasses
from functools import partial

import jax
from flax import nnx

from glm_jax.config import GLMConfig
from glm_jax.errors import InputError
from glm_jax.model import GLM

_STOPS = {"eos_token_id": (151_329, 151_336, 151_338), "pad_token_id": 151_329}
_CHATGLM3 = GLMConfig(
    vocab_size=65_024, hidden_size=4096, intermediate_size=13_696, num_hidden_layers=28,
    num_attention_heads=32, num_key_value_heads=2, head_dim=128, max_position_embeddings=8192,
    rms_norm_eps=1e-5, eos_token_id=(2,), pad_token_id=0,
)  # fmt: skip
_GLM4 = dataclasses.replace(
    _CHATGLM3, vocab_size=151_552, num_hidden_layers=40, rms_norm_eps=1.5625e-7, **_STOPS
)
_0414 = dataclasses.replace(
    _GLM4, model_type="glm4", rms_norm_eps=1e-5, max_position_embeddings=32_768
)
_AIR = GLMConfig(
    model_type="glm4_moe", vocab_size=151_552, hidden_size=4096, intermediate_size=10_944,
    num_hidden_layers=46, num_attention_heads=96, num_key_value_heads=8, head_dim=128,
    max_position_embeddings=131_072, rms_norm_eps=1e-5, rope_theta=1e6, n_routed_experts=128,
    num_experts_per_tok=8, n_shared_experts=1, moe_intermediate_size=1408,
    first_k_dense_replace=1, **_STOPS,
)  # fmt: skip


def _longer(config: GLMConfig, ratio: int, length: int, **changes) -> GLMConfig:
    """A longer context by a rotary base that is `ratio` times as large."""
    return dataclasses.replace(
        config, rope_theta=10_000.0 * ratio, max_position_embeddings=length, **changes
    )


PRESETS: dict[str, GLMConfig] = {
    "chatglm2-6b": dataclasses.replace(_CHATGLM3, max_position_embeddings=32_768),
    "chatglm3-6b": _CHATGLM3,
    "chatglm3-6b-32k": _longer(_CHATGLM3, 50, 32_768),
    "chatglm3-6b-128k": _longer(_CHATGLM3, 500, 131_072),
    "glm-4-9b": _GLM4,
    "glm-4-9b-chat": _longer(_GLM4, 500, 131_072),
    "glm-4-9b-chat-1m": _longer(_GLM4, 10_000, 1_048_576, num_key_value_heads=4),
    "glm-4-9b-0414": _0414,
    "glm-4-32b-0414": dataclasses.replace(
        _0414, hidden_size=6144, intermediate_size=23_040, num_hidden_layers=61,
        num_attention_heads=48, attention_bias=False,
    ),
    "glm-4.5-air": _AIR,
    "glm-4.5": dataclasses.replace(
        _AIR, hidden_size=5120, intermediate_size=12_288, num_hidden_layers=92,
        n_routed_experts=160, moe_intermediate_size=1536, first_k_dense_replace=3,
        routed_scaling_factor=2.5, use_qk_norm=True,
    ),
}  # fmt: skip


def preset(name: str) -> GLMConfig:
    """The configuration of a released model. Raises InputError for a name that is none."""
    if name not in PRESETS:
        raise InputError(f"no model {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def parameters(config: GLMConfig) -> int:
    """How many numbers the weights of a model under a language-model head are."""
    model = jax.eval_shape(partial(GLM, config, head="lm"), nnx.Rngs(0))
    return sum(leaf.size for leaf in jax.tree.leaves(model))


def table() -> str:
    """The presets as a table in Markdown."""
    rows = ["| name | parameters | layers | hidden | ffn | heads / groups | vocabulary | context |"]
    rows.append("|" + "---|" * 8)
    for name, c in PRESETS.items():
        ffn = f"{c.intermediate_size:,}"
        if c.n_routed_experts:
            experts = f"{c.num_experts_per_tok} of {c.n_routed_experts} experts"
            ffn = (
                f"{experts} of {c.moe_intermediate_size:,}; first {c.first_k_dense_replace}: {ffn}"
            )
        rows.append(
            f"| `{name}` | {parameters(c) / 1e9:.2f} B | {c.num_hidden_layers} | {c.hidden_size:,} "
            f"| {ffn} | {c.num_attention_heads} / {c.num_key_value_heads} | {c.vocab_size:,} "
            f"| {c.max_position_embeddings:,} |"
        )
    return "\n".join(rows) + "\n"
