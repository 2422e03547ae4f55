"""Attention of whole texts by the kernels that accelerators have for it.

They never hold the scores of all pairs of tokens, which is what attention needs its memory for.
What they compute, `attend` in `glm_jax.layers` says plainly; it stays the default, and decoding's.

Dimensions in names: see `glm_jax.layers`.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    CausalMask,
    MultiHeadMask,
    SegmentIds,
    make_splash_mha_single_device,
)
from jaxtyping import Array, Bool, Float, Int

from glm_jax.errors import InputError
from glm_jax.sharding import divided, parts

Attention = Literal["plain", "splash", "cudnn"]
Ids = Bool[Array, "B S"] | Int[Array, "B S"]
PLATFORMS = {"splash": "tpu", "cudnn": "gpu"}

# Tokens of a block that splash attention works on: the largest that divides the text.
BLOCKS = 512, 384, 256, 128
INTERPRETED = False  # in tests, by Pallas' interpreter: no TPU is there


def check_platform(attention: Attention, platform: str) -> None:
    """Raises InputError unless the platform, as JAX calls it, has this attention."""
    needs = PLATFORMS.get(attention, platform)
    if needs != platform:
        known = [name for name, where in PLATFORMS.items() if where == platform]
        raise InputError(
            f"attention {attention} is made for {needs.upper()}, and this is {platform.upper()}: "
            f"{' or '.join([*known, 'plain'])} would do"
        )


def check_dtype(attention: Attention, dtype: str | None) -> None:
    """Raises InputError where the kernel does not compute in this dtype; None: what fits."""
    if attention == "cudnn" and dtype == "float32":
        raise InputError("attention cudnn is not made for float32: take compute bfloat16, or plain")


def attend_in_kernel(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S G H"],
    v: Float[Array, "B S G H"],
    real: Ids,
    attention: Attention,
) -> Float[Array, "B T N H"]:
    """Causal grouped-query attention of a text's last T tokens to all S of it, but for its pads.

    `real`: which tokens are no pads or, of several texts in a row, the number of each token's.

    The output of a pad means nothing but is finite. On a mesh rows and heads are split.
    """
    kernel = {"splash": splash, "cudnn": dot_product}[attention]
    if jax.sharding.get_abstract_mesh().empty:
        return kernel(q, k, v, real)
    # a device holds a group for each part of its query heads: what is missing is repeated
    groups, heads = k.shape[2], ("rows", None, "q_heads", None)
    times = math.lcm(groups, parts("q_heads")) // groups
    k, v = (jnp.repeat(z, times, axis=2) for z in (k, v))
    q_split, k_split = divided(q.shape, *heads), divided(k.shape, *heads)
    return jax.shard_map(
        kernel,
        in_specs=(q_split, k_split, k_split, divided(real.shape, "rows", None)),
        out_specs=q_split,
        check_vma=False,  # what Pallas gives does not say over which axes it differs
    )(q, k, v, real)


def splash(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S G H"],
    v: Float[Array, "B S G H"],
    real: Ids,
) -> Float[Array, "B T N H"]:
    """Splash attention in Pallas, for TPUs; the scores in float32.

    Pads are a segment of their own: they see each other, and no real token sees them.
    """
    (_, T, N, H), S = q.shape, k.shape[1]
    q = (q.astype(jnp.float32) * H**-0.5).astype(q.dtype)
    ids = real.astype(jnp.int32)
    q, k, v = (_lengthened(z.swapaxes(1, 2), 2, BLOCKS[-1]) for z in (q, k, v))
    q_ids, k_ids = (_lengthened(z, 1, BLOCKS[-1]) for z in (ids[:, -T:], ids))
    rows, columns = q.shape[2], k.shape[2]
    by_row, by_column = (next(n for n in BLOCKS if z % n == 0) for z in (rows, columns))
    kernel = make_splash_mha_single_device(
        MultiHeadMask([CausalMask((rows, columns), offset=S - T)] * N),
        block_sizes=BlockSizes(
            by_row, by_column, by_column,
            block_q_dkv=by_row, block_kv_dkv=by_column, block_kv_dkv_compute=by_column,
            block_q_dq=by_row, block_kv_dq=by_column,
        ),
        interpret=INTERPRETED,
    )  # fmt: skip
    y = jax.vmap(kernel)(q, k, v, SegmentIds(q_ids, k_ids))
    return y[:, :, :T].swapaxes(1, 2)


def dot_product(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S G H"],
    v: Float[Array, "B S G H"],
    real: Ids,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B T N H"]:
    """cuDNN's attention, for GPUs, in bfloat16 or float16. Pads see each other, as in `splash`."""
    T, S = q.shape[1], k.shape[1]
    q, k, v = (_lengthened(z, 1, 2) for z in (q, k, v))  # its backward pass wants even lengths
    ids = _lengthened(real, 1, 2)
    q_ids = _lengthened(real[:, -T:], 1, 2)
    rows, columns = jnp.arange(q.shape[1]) + S - T, jnp.arange(k.shape[1])
    mask = (rows[:, None] >= columns[None])[None] & (q_ids[:, :, None] == ids[:, None])
    y = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation=implementation)
    return y[:, :T]


def _lengthened(x: Array, axis: int, multiple: int) -> Array:
    """With zeros at the end of the axis, up to a multiple."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = 0, -x.shape[axis] % multiple
    return jnp.pad(x, widths)
