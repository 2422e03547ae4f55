"""One layer of a GLM: attention and a gated MLP, or experts, around a residual stream."""

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from glm_jax.attention import attend_in_kernel
from glm_jax.config import GLMConfig
from glm_jax.experts import Experts
from glm_jax.layers import Cache, attend_in_blocks, project, remember, rms_norm, rotate, turned
from glm_jax.sight import Sight
from glm_jax.weights import Disk, Place, fan_in, ones, weight, zeros

MLP = "gate", "up", "down"


class Block(nnx.Module):
    """x + attention(norm(x)), then x + SwiGLU(norm(x)); sandwich norms norm both summands."""

    def __init__(self, config: GLMConfig, rngs: nnx.Rngs, experts: bool = False):
        D, F = config.hidden_size, config.intermediate_size
        N, G, H = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        heads = {"q": (N, H), "k": (G, H), "v": (G, H)}
        axes = {"q": ("q_heads", "head_dim"), "k": ("kv_heads", "head_dim")}
        axes["v"] = axes["k"]
        # 2L outputs are added to the residual stream: together they have unit size (GPT-2)
        inner, residual = fan_in(D), (2 * config.num_hidden_layers) ** -0.5

        def norm(name: str, released: bool = False, size: int = D) -> nnx.Param:
            disk = _disk(0, f"{name}.weight", f"{name}.weight" if released else None)
            return weight(rngs, (size,), ("embed" if size == D else "head_dim",), ones, disk)

        self.config = config
        self.attention_norm = norm("input_layernorm", released=True)
        for part, z in enumerate("qkv"):
            fused = "self_attention.query_key_value.weight", part
            disk = _disk(1, f"self_attn.{z}_proj.weight", *fused)
            setattr(self, z, weight(rngs, (D, *heads[z]), ("embed", *axes[z]), inner, disk))
        if config.attention_bias:
            for part, z in enumerate("qkv"):
                fused = "self_attention.query_key_value.bias", part
                disk = _disk(0, f"self_attn.{z}_proj.bias", *fused)
                setattr(self, f"{z}_bias", weight(rngs, heads[z], axes[z], zeros, disk))
        disk = _disk(2, "self_attn.o_proj.weight", "self_attention.dense.weight")
        self.o = weight(rngs, (N, H, D), (*axes["q"], "embed"), fan_in(N * H, residual), disk)
        self.mlp_norm = norm("post_attention_layernorm", released=True)
        if config.use_qk_norm:
            self.q_norm = norm("self_attn.q_norm", size=H)
            self.k_norm = norm("self_attn.k_norm", size=H)
        if config.sandwich_norms:
            self.attention_out_norm = norm("post_self_attn_layernorm")
            self.mlp_out_norm = norm("post_mlp_layernorm")
        if experts:
            self.experts = Experts(config, rngs, residual)
            return
        separate = config.model_type == "glm4_moe"
        for part, z in enumerate(("gate", "up")):
            place = (f"mlp.{z}_proj.weight", 0) if separate else ("mlp.gate_up_proj.weight", part)
            disk = _disk(1, place, "mlp.dense_h_to_4h.weight", part)
            setattr(self, z, weight(rngs, (D, F), ("embed", "ffn"), inner, disk))
        disk = _disk(1, "mlp.down_proj.weight", "mlp.dense_4h_to_h.weight")
        self.down = weight(rngs, (F, D), ("ffn", "embed"), fan_in(F, residual), disk)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        sight: Sight,
        cache: Cache | None,
        layer: int | Int[Array, ""],
        last: int | None = None,
    ) -> tuple[Float[Array, "B O D"], Cache | None]:
        """With `last`, only so many tokens at the end come out: all are attended to, and no more
        is computed of the others than their keys and values."""
        eps = self.config.rms_norm_eps
        with jax.named_scope("attention"):
            y = rms_norm(x, self.attention_norm[...], eps)
            y, cache = self._attention(y, sight, cache, layer, last or y.shape[1])
            if self.config.sandwich_norms:
                y = rms_norm(y, self.attention_out_norm[...], eps)
            x = x[:, -y.shape[1] :] + y
        with jax.named_scope("mlp"):
            y = rms_norm(x, self.mlp_norm[...], eps)
            y = self.experts(y) if hasattr(self, "experts") else self._mlp(y)
            if self.config.sandwich_norms:
                y = rms_norm(y, self.mlp_out_norm[...], eps)
            return x + y, cache

    def turned(self) -> "Block":
        """The same layer with the weights of its plain products turned."""
        other = jax.tree.map(lambda w: w, self)
        for name in ("q", "k", "v", "o", *(() if hasattr(self, "experts") else MLP)):
            setattr(other, name, turned(getattr(self, name), inputs=2 if name == "o" else 1))
        return other

    def _attention(self, x, sight, cache, layer, last):
        config = self.config
        q, k, v = (
            project(x[:, -last:], self.q),
            *(project(x, w) for w in (self.k, self.v)),
        )
        if config.attention_bias:
            biases = (b[...][None, None] for b in (self.q_bias, self.k_bias, self.v_bias))
            q, k, v = (z + b.astype(z.dtype) for z, b in zip((q, k, v), biases, strict=True))
        if config.use_qk_norm:
            q = rms_norm(q, self.q_norm[...], config.rms_norm_eps)
            k = rms_norm(k, self.k_norm[...], config.rms_norm_eps)
        late = [part[:, -last:] for part in sight.angles]
        places = (q, late), (k, sight.angles)
        q, k = (rotate(z, *angles, config.interleaved_rotary) for z, angles in places)
        if sight.attention != "plain":
            y = attend_in_kernel(q, k, v, sight.mask, sight.attention)
            return project(y, self.o, inputs=2), cache
        k, v = k.transpose(0, 2, 3, 1), v.swapaxes(1, 2)
        if cache is not None:
            cache, k, v = remember(cache, layer, k, v)
        y = attend_in_blocks(q, k, v, sight.mask[:, -last:], sight.blocks)
        return project(y, self.o, inputs=2), cache

    def _mlp(self, x):
        y = jax.nn.silu(project(x, self.gate)) * project(x, self.up)
        return project(y, self.down)


def _disk(
    inputs: int, transformers: str | tuple[str, int], chatglm: str | None = None, part: int = 0
) -> Disk:
    """A layer's weight; `part` is its part of the tensor that ChatGLM's releases have."""
    name, own_part = (transformers, 0) if isinstance(transformers, str) else transformers
    released = Place(f"transformer.encoder.layers.{{layer}}.{chatglm}", part) if chatglm else None
    return Disk(inputs, Place(f"model.layers.{{layer}}.{name}", own_part), released)
