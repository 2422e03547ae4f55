"""The arithmetic of a GLM: RMSNorm, rotary positions, attention and its cache.

Dimensions in names: B batch, T query position, S key position, D hidden, N query heads,
G key/value groups, M query heads of a group, H head size, F ffn, V vocabulary, L layers.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int


def rms_norm(x: Float[Array, "*B D"], scale: Float[Array, "D"], eps: float) -> Float[Array, "*B D"]:
    """Root-mean-square norm in float32 (Zhang and Sennrich, 2019)."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)
    return y.astype(x.dtype) * jnp.expand_dims(scale.astype(x.dtype), range(x.ndim - 1))


class Turned(nnx.Param):
    """A weight `[*inputs, *outputs]` that is kept as `[*outputs, *inputs]`.

    XLA for CPU multiplies a few rows by it faster: a step of decoding gains about a seventh.
    """


def turned(w: nnx.Param, inputs: int = 1) -> Turned:
    """The weight with its first axes, `inputs` of them, behind the others."""
    if isinstance(w, Turned):
        return w
    return Turned(jnp.moveaxis(w[...], range(inputs), range(-inputs, 0)))


def project(x: Float[Array, "..."], w: nnx.Param, inputs: int = 1) -> Float[Array, "..."]:
    """x `[..., *inputs]` times w `[*inputs, *outputs]`, in x's dtype; `inputs`: how many axes.

    One plain matrix product: XLA for CPU runs the backward pass of the product of more dimensions
    three times slower.
    """
    rows, is_turned = x.shape[: x.ndim - inputs], isinstance(w, Turned)
    outputs = w.shape[: w.ndim - inputs] if is_turned else w.shape[inputs:]
    size = math.prod(outputs)
    flat = w[...].astype(x.dtype).reshape((size, -1) if is_turned else (-1, size))
    axes = (((1,), (1 if is_turned else 0,)), ((), ()))
    y = jax.lax.dot_general(x.reshape(math.prod(rows), -1), flat, axes)
    return y.reshape(*rows, *outputs)


def rotary(
    positions_BxT: Int[Array, "B T"], rotary_dim: int, theta: float
) -> tuple[Float[Array, "B T R"], Float[Array, "B T R"]]:
    """Cosines and sines of the rotary angles, R = ceil(rotary_dim / 2) of them, in float32."""
    frequencies_R = theta ** (-jnp.arange(0, rotary_dim, 2, dtype=jnp.float32) / rotary_dim)
    angles_BxTxR = jnp.einsum("bt,r->btr", positions_BxT.astype(jnp.float32), frequencies_R)
    return jnp.cos(angles_BxTxR), jnp.sin(angles_BxTxR)


def rotate(
    x: Float[Array, "B T N H"],
    cosines: Float[Array, "B T R"],
    sines: Float[Array, "B T R"],
    interleaved: bool = True,
) -> Float[Array, "B T N H"]:
    """Rotates R pairs of the first 2R dimensions of each head (Su et al., 2021).

    Interleaved: the pairs (0, 1), (2, 3), ...; otherwise (0, R), (1, R + 1), ... (GPT-NeoX).
    """
    R, axis = cosines.shape[-1], -1 if interleaved else -2
    pairs = (R, 2) if interleaved else (2, R)
    turned = x[..., : 2 * R].astype(jnp.float32).reshape(*x.shape[:-1], *pairs)
    first, second = (jax.lax.index_in_dim(turned, i, axis, keepdims=False) for i in range(2))
    cos, sin = cosines[:, :, None, :], sines[:, :, None, :]
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis)
    turned = turned.reshape(*x.shape[:-1], 2 * R).astype(x.dtype)
    return jnp.concatenate([turned, x[..., 2 * R :]], axis=-1)


def attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B G H S"],
    v: Float[Array, "B G S H"],
    mask: Bool[Array, "B T S"],
) -> Float[Array, "B T N H"]:
    """Grouped-query attention (Ainslie et al., 2023), softmax in float32.

    A row whose mask is all False attends everywhere: its output means nothing but is finite.
    """
    (B, T, N, H), (_, G, S, _) = q.shape, v.shape
    # heads of a group are further queries of it: plain products, and no transposed scores
    q = q.reshape(B, T, G, N // G, H).transpose(0, 2, 3, 1, 4).reshape(B, G, -1, H)
    scores = jnp.einsum("bgqh,bghs->bgqs", q, k).astype(jnp.float32) * H**-0.5
    scores = jnp.where(mask[:, None, None], scores.reshape(B, G, -1, T, S), -1e30)
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    weights = weights.reshape(B, G, -1, S)
    y = jnp.einsum("bgqs,bgsh->bgqh", weights.astype(v.dtype), v).astype(jnp.float32)
    # the sum divides the outputs, which are fewer than the weights
    y = (y / jnp.sum(weights, axis=-1, keepdims=True)).astype(v.dtype)
    return y.reshape(B, G, -1, T, H).transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def attend_in_blocks(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B G H S"],
    v: Float[Array, "B G S H"],
    mask: Bool[Array, "B T S"],
    blocks: int,
) -> Float[Array, "B T N H"]:
    """`attend` where the T queries are the last of S tokens and see none behind them: so many of
    them at a time, without the keys that none of these sees."""
    T, S = q.shape[1], v.shape[2]
    size = -(-T // blocks)
    ys = []
    for first in range(0, T, size):
        queries, keys = slice(first, first + size), slice(0, S - T + min(first + size, T))
        ys.append(attend(q[:, queries], k[..., keys], v[:, :, keys], mask[:, queries, keys]))
    return ys[0] if len(ys) == 1 else jnp.concatenate(ys, axis=1)


class Cache(NamedTuple):
    """Keys and values of every layer; `column` is where the next token is written.

    Keys lie so that a token's scores are a plain product: attention to the cache then takes XLA for
    CPU two thirds of the time.

    An array for all layers or, of a model that is unstacked, one for each.
    """

    k: Float[Array, "L B G H S"] | list[Float[Array, "B G H S"]]
    v: Float[Array, "L B G S H"] | list[Float[Array, "B G S H"]]
    column: Int[Array, ""]


def remember(
    cache: Cache,
    layer: int | Int[Array, ""],
    k: Float[Array, "B G H T"],
    v: Float[Array, "B G T H"],
) -> tuple[Cache, Float[Array, "B G H S"], Float[Array, "B G S H"]]:
    """The cache with a layer's new keys and values in it, and all that it holds of that layer."""
    k_at, v_at = (0, 0, 0, cache.column), (0, 0, cache.column, 0)
    if isinstance(cache.k, list):
        k = jax.lax.dynamic_update_slice(cache.k[layer], k, k_at)
        v = jax.lax.dynamic_update_slice(cache.v[layer], v, v_at)
        new_k, new_v = list(cache.k), list(cache.v)
        new_k[layer], new_v[layer] = k, v
        return cache._replace(k=new_k, v=new_v), k, v
    new_k = jax.lax.dynamic_update_slice(cache.k, k[None], (layer, *k_at))
    new_v = jax.lax.dynamic_update_slice(cache.v, v[None], (layer, *v_at))
    k, v = (jax.lax.dynamic_index_in_dim(z, layer, keepdims=False) for z in (new_k, new_v))
    return cache._replace(k=new_k, v=new_v), k, v
