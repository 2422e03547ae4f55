"""The mixture of experts of GLM-4.5: a sigmoid router, dropless experts and shared ones.

Dimensions in names: X tokens, E experts, K experts of a token, F ffn of an expert.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from glm_jax.config import GLMConfig
from glm_jax.dispatch import SwiGLU, on_mesh
from glm_jax.weights import Disk, Place, fan_in, weight, zeros


class Experts(nnx.Module):
    """The MLP of a layer with experts."""

    def __init__(self, config: GLMConfig, rngs: nnx.Rngs, residual: float):
        D, E, F = config.hidden_size, config.n_routed_experts, config.moe_intermediate_size
        S = F * config.n_shared_experts
        in_axes, out_axes = ("embed", "ffn"), ("ffn", "embed")

        def disk(name: str, inputs: int = 1) -> Disk:
            return Disk(inputs, Place(f"model.layers.{{layer}}.mlp.{name}"))

        self.config = config
        self.router = weight(rngs, (D, E), ("embed", "experts"), fan_in(D), disk("gate.weight"))
        # moved by the load of the experts while pretraining, never by a gradient
        correction = disk("gate.e_score_correction_bias", inputs=0)
        self.router_bias = weight(rngs, (E,), ("experts",), zeros, correction, fixed=True)
        for z in ("gate", "up"):
            own = disk(f"experts.{{expert}}.{z}_proj.weight")
            setattr(self, z, weight(rngs, (E, D, F), ("experts", *in_axes), fan_in(D), own))
            own = disk(f"shared_experts.{z}_proj.weight")
            setattr(self, f"shared_{z}", weight(rngs, (D, S), in_axes, fan_in(D), own))
        own = disk("experts.{expert}.down_proj.weight")
        self.down = weight(rngs, (E, F, D), ("experts", *out_axes), fan_in(F, residual), own)
        own = disk("shared_experts.down_proj.weight")
        self.shared_down = weight(rngs, (S, D), out_axes, fan_in(S, residual), own)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        def mlp(prefix: str = "") -> SwiGLU:
            names = (prefix + name for name in SwiGLU._fields)
            return SwiGLU(*(getattr(self, name)[...].astype(x.dtype) for name in names))

        chosen = partial(route, config=self.config)
        router, experts, shared = (self.router[...], self.router_bias[...]), mlp(), mlp("shared_")
        mesh = jax.sharding.get_abstract_mesh()
        if not mesh.empty:
            return on_mesh(x, chosen, router, experts, shared, mesh)
        tokens_XxD = x.reshape(-1, x.shape[-1])
        weights_XxK, experts_XxK = chosen(tokens_XxD, *router)
        # tokens in the order of their experts: each expert's rows lie together, however many
        K = self.config.num_experts_per_tok
        order = jnp.argsort(experts_XxK.reshape(-1))
        sizes_E = jnp.bincount(experts_XxK.reshape(-1), length=self.config.n_routed_experts)
        outputs_XKxD = experts.ragged(tokens_XxD[order // K], sizes_E)
        outputs_XKxD = jnp.zeros_like(outputs_XKxD).at[order].set(outputs_XKxD)
        weights = weights_XxK.astype(x.dtype)[..., None]
        routed = jnp.sum(outputs_XKxD.reshape(-1, K, x.shape[-1]) * weights, axis=1)
        return (routed + shared(tokens_XxD)).reshape(x.shape)


def route(
    tokens_XxD: Float[Array, "X D"],
    router_DxE: Float[Array, "D E"],
    bias_E: Float[Array, "E"],
    config: GLMConfig,
) -> tuple[Float[Array, "X K"], Int[Array, "X K"]]:
    """Weights and numbers of each token's experts, in float32 (DeepSeek-V3, equations 12-16).

    The bias helps to choose and does not weigh. With groups, only experts of the groups whose two
    best add up to most are eligible.
    """
    scores_XxE = jax.nn.sigmoid(tokens_XxD.astype(jnp.float32) @ router_DxE.astype(jnp.float32))
    choice_XxE = scores_XxE + jax.lax.stop_gradient(bias_E.astype(jnp.float32))[None]
    if config.n_group > 1:
        X, groups = len(choice_XxE), config.n_group
        choice = choice_XxE.reshape(X, groups, -1)
        best_XxG = jnp.sum(jax.lax.top_k(choice, 2)[0], axis=-1)
        eligible = jax.lax.top_k(best_XxG, config.topk_group)[1]
        eligible_XxG = jnp.any(jax.nn.one_hot(eligible, groups, dtype=bool), axis=1)
        choice_XxE = jnp.where(eligible_XxG[..., None], choice, -jnp.inf).reshape(X, -1)
    experts_XxK = jax.lax.top_k(choice_XxE, config.num_experts_per_tok)[1]
    weights_XxK = jnp.take_along_axis(scores_XxE, experts_XxK, axis=1)
    if config.norm_topk_prob:
        weights_XxK /= jnp.sum(weights_XxK, axis=1, keepdims=True) + 1e-20
    return weights_XxK * config.routed_scaling_factor, experts_XxK
