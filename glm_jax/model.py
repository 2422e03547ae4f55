"""The GLM: an embedding, stacked and scanned blocks, a norm and a head.

Dimensions in names: see `glm_jax.layers`. A model is a pytree of its weights: it goes through
`jax.jit`, `jax.grad` and optax as it is.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from glm_jax.config import GLMConfig
from glm_jax.layers import Cache, attend, project, rms_norm, rotary, rotate
from glm_jax.weights import Disk, fan_in, normal, ones, weight, zeros

Head = Literal["lm", "scalar"]


class Block(nnx.Module):
    """One layer: x + attention(norm(x)), then x + SwiGLU(norm(x))."""

    def __init__(self, config: GLMConfig, rngs: nnx.Rngs):
        D, F = config.hidden_size, config.intermediate_size
        N, G, H = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        q_axes, kv_axes = ("q_heads", "head_dim"), ("kv_heads", "head_dim")
        q, k, v = (Disk(f"self_attn.{name}_proj.weight", inputs=1) for name in "qkv")
        gate, up = (Disk("mlp.gate_up_proj.weight", inputs=1, part=part) for part in range(2))
        o, down = Disk("self_attn.o_proj.weight", inputs=2), Disk("mlp.down_proj.weight", inputs=1)
        norms = Disk("input_layernorm.weight"), Disk("post_attention_layernorm.weight")

        # 2L outputs are added to the residual stream: together they have unit size (GPT-2)
        inner, residual = fan_in(D), (2 * config.num_hidden_layers) ** -0.5

        self.config = config
        self.attention_norm = weight(rngs, (D,), ("embed",), ones, norms[0])
        self.q = weight(rngs, (D, N, H), ("embed", *q_axes), inner, q)
        self.k = weight(rngs, (D, G, H), ("embed", *kv_axes), inner, k)
        self.v = weight(rngs, (D, G, H), ("embed", *kv_axes), inner, v)
        if config.attention_bias:
            q, k, v = (Disk(f"self_attn.{name}_proj.bias") for name in "qkv")
            self.q_bias = weight(rngs, (N, H), q_axes, zeros, q)
            self.k_bias = weight(rngs, (G, H), kv_axes, zeros, k)
            self.v_bias = weight(rngs, (G, H), kv_axes, zeros, v)
        self.o = weight(rngs, (N, H, D), (*q_axes, "embed"), fan_in(N * H, residual), o)
        self.mlp_norm = weight(rngs, (D,), ("embed",), ones, norms[1])
        self.gate = weight(rngs, (D, F), ("embed", "ffn"), inner, gate)
        self.up = weight(rngs, (D, F), ("embed", "ffn"), inner, up)
        self.down = weight(rngs, (F, D), ("ffn", "embed"), fan_in(F, residual), down)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        angles: tuple[Float[Array, "B T R"], Float[Array, "B T R"]],
        mask: Bool[Array, "B T S"],
        cache: Cache | None,
        layer: Int[Array, ""],
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        config = self.config
        with jax.named_scope("attention"):
            y = rms_norm(x, self.attention_norm[...], config.rms_norm_eps)
            q, k, v = (project(y, w[...]) for w in (self.q, self.k, self.v))
            if config.attention_bias:
                biases = (b[...][None, None] for b in (self.q_bias, self.k_bias, self.v_bias))
                q, k, v = (z + b.astype(z.dtype) for z, b in zip((q, k, v), biases, strict=True))
            q, k, v = rotate(q, *angles), rotate(k, *angles).swapaxes(1, 2), v.swapaxes(1, 2)
            if cache is not None:
                at = (layer, 0, 0, cache.column, 0)
                cache = cache._replace(
                    k=jax.lax.dynamic_update_slice(cache.k, k[None], at),
                    v=jax.lax.dynamic_update_slice(cache.v, v[None], at),
                )
                k = jax.lax.dynamic_index_in_dim(cache.k, layer, keepdims=False)
                v = jax.lax.dynamic_index_in_dim(cache.v, layer, keepdims=False)
            y = attend(q, k, v, mask)
            x = x + project(y.reshape(*y.shape[:2], -1), self.o[...].reshape(-1, x.shape[-1]))
        with jax.named_scope("mlp"):
            y = rms_norm(x, self.mlp_norm[...], config.rms_norm_eps)
            y = jax.nn.silu(project(y, self.gate[...])) * project(y, self.up[...])
            return x + project(y, self.down[...]), cache


class GLM(nnx.Module):
    """A decoder with a language-model head (`lm`) or one score a token (`scalar`)."""

    def __init__(self, config: GLMConfig, rngs: nnx.Rngs, head: Head = "lm"):
        D, V = config.hidden_size, config.vocab_size
        self.config = config
        self.head_kind = head
        embedding, norm = Disk("model.embed_tokens.weight", inputs=None), Disk("model.norm.weight")
        self.embedding = weight(rngs, (V, D), ("vocab", "embed"), normal(1.0), embedding)
        self.blocks = _stack(config, rngs)
        self.norm = weight(rngs, (D,), ("embed",), ones, norm)
        self.head = _head(config, rngs, head)

    def hidden(
        self, tokens_BxT: Int[Array, "B T"], mask_BxT: Bool[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Final hidden states, normed. Pads (mask False) may lie anywhere and are never seen."""
        T = tokens_BxT.shape[1]
        causal_TxT = jnp.tril(jnp.ones((T, T), bool))
        x, _ = self._run(tokens_BxT, positions(mask_BxT), causal_TxT[None] & mask_BxT[:, None])
        return x

    def __call__(
        self, tokens_BxT: Int[Array, "B T"], mask_BxT: Bool[Array, "B T"]
    ) -> Float[Array, "B T O"]:
        """Logits (O = V) or scores (O = 1) in float32 at every token."""
        return self.outputs(self.hidden(tokens_BxT, mask_BxT))

    def outputs(self, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
        """The head alone, in float32."""
        with jax.named_scope("head"):
            return project(x, self.head[...]).astype(jnp.float32)

    def extend(
        self,
        tokens_BxT: Int[Array, "B T"],
        positions_BxT: Int[Array, "B T"],
        mask_BxS: Bool[Array, "B S"],
        cache: Cache,
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Hidden states of T more tokens after those in the cache; `mask` says which of its S
        columns, the new ones included, hold real tokens."""
        T, S = tokens_BxT.shape[1], mask_BxS.shape[1]
        columns_T = cache.column + jnp.arange(T)
        causal_TxS = jnp.arange(S)[None, :] <= columns_T[:, None]
        mask_BxTxS = causal_TxS[None] & mask_BxS[:, None]
        x, cache = self._run(tokens_BxT, positions_BxT, mask_BxTxS, cache)
        return x, cache._replace(column=cache.column + T)

    def _run(self, tokens_BxT, positions_BxT, mask_BxTxS, cache: Cache | None = None):
        config = self.config
        angles = rotary(positions_BxT, config.rotary_dim, config.rope_theta)

        def layer(carry, inputs):
            block, index = inputs
            return block(carry[0], angles, mask_BxTxS, carry[1], index), None

        # the cache rides in the carry: as scan inputs and outputs it would be copied every token
        inputs = self.blocks, jnp.arange(config.num_hidden_layers)
        x = self.embedding[...][tokens_BxT]
        # a few layers are unrolled: it costs no compile time, and saving activations in a loop
        # takes a third of a small model's backward pass on CPU
        shallow = config.num_hidden_layers <= 4
        (x, cache), _ = jax.lax.scan(layer, (x, cache), inputs, unroll=shallow)
        return rms_norm(x, self.norm[...], config.rms_norm_eps), cache


def positions(mask_BxT: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """0, 1, 2, ... over the real tokens of each row; pads get any value within range."""
    return jnp.maximum(jnp.cumsum(mask_BxT, axis=1, dtype=jnp.int32) - 1, 0)


def with_head(model: GLM, head: Head, rngs: nnx.Rngs) -> GLM:
    """The model's trunk (shared, not copied) under a fresh head."""
    config = model.config
    other = nnx.eval_shape(lambda: GLM(config, nnx.Rngs(0), head))
    other.embedding, other.blocks, other.norm = model.embedding, model.blocks, model.norm
    other.head = _head(config, rngs, head)
    return other


def _head(config: GLMConfig, rngs: nnx.Rngs, head: Head) -> nnx.Param:
    D, V = config.hidden_size, config.vocab_size
    if head == "lm":
        disk = Disk("lm_head.weight", inputs=1)
        return weight(rngs, (D, V), ("embed", "vocab"), fan_in(D), disk)
    # std 1/sqrt(D + 1), as in Stiennon et al., 2020: scores of a fresh head have unit size
    return weight(rngs, (D, 1), ("embed", "score"), fan_in(D + 1), Disk("score.weight", inputs=1))


def _stack(config: GLMConfig, rngs: nnx.Rngs) -> Block:
    """All blocks as one, each weight with a leading axis of layers."""

    @nnx.split_rngs(splits=config.num_hidden_layers)
    @nnx.vmap
    def create(rngs: nnx.Rngs) -> Block:
        return Block(config, rngs)

    return create(rngs)
