"""Kernels against the plain path, which says what they compute. Pallas is interpreted here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax import attention
from glm_jax.errors import InputError
from glm_jax.layers import attend
from glm_jax.mesh import MeshConfig, make_mesh, on_mesh
from glm_jax.sight import causal

B, S, N, G, H = 3, 200, 4, 2, 8


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(attention, "INTERPRETED", True)


def drawn(*shape: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def real(rows: int = B, length: int = S) -> jax.Array:
    """Rows with pads on the left, on the right, on both sides, and so on."""
    places, third = np.arange(length), np.arange(rows)[:, None] % 3
    return jnp.asarray((places >= length // 4 * (third != 1)) & (places < length - 9 * third))


def plain(q, k, v, real):
    T = q.shape[1]
    return attend(q, k.transpose(0, 2, 3, 1), v.swapaxes(1, 2), causal(real)[:, -T:])


def pulled(function, q, k, v, real):
    """(outputs at real tokens, gradients of q, k and v when only those count, whether all outputs
    are finite)."""
    counted = real[:, -q.shape[1] :, None, None]
    weights = jnp.where(counted, drawn(*q.shape, seed=9), 0.0)

    def loss(*qkv):
        y = function(*qkv, real)
        return jnp.sum(y * weights), (jnp.where(counted, y, 0.0), jnp.all(jnp.isfinite(y)))

    (_, (y, finite)), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(q, k, v)
    return y, gradients, finite


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


@pytest.mark.parametrize("last", [S, 70])
@pytest.mark.parametrize(
    "kernel",
    [attention.splash, lambda *given: attention.dot_product(*given, implementation="xla")],
    ids=["splash", "what cuDNN is asked for"],
)
def test_a_kernel_is_the_plain_path(kernel, last):
    """Grouped heads, pads anywhere, a length that no block divides, queries of the end alone."""
    q, k, v = drawn(B, last, N, H, seed=0), drawn(B, S, G, H, seed=1), drawn(B, S, G, H, seed=2)
    found, expected = (jax.jit(lambda *given, f=f: pulled(f, *given)) for f in (kernel, plain))
    *found, finite = found(q, k, v, real())
    close(tuple(found), expected(q, k, v, real())[:2])
    assert finite


@pytest.mark.parametrize(
    ("shape", "own"), [(None, (8, 4, 2)), (MeshConfig(fsdp=2, tensor=4), (4, 1, 1))], ids=str
)
def test_cudnn_is_what_a_gpu_is_given(tiny, monkeypatch, shape, own):
    """Lowered for GPUs, there being none here: both passes are cuDNN's, of a device's own rows,
    heads and groups."""
    monkeypatch.setattr(
        "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000
    )
    q, k, v = (jax.ShapeDtypeStruct((8, S, n, 64), jnp.bfloat16) for n in (N, G, G))

    def loss(*qkv):
        return jnp.sum(attention.attend_in_kernel(*qkv, real(8), "cudnn").astype(jnp.float32))

    with on_mesh(shape and make_mesh(shape, [tiny(vocab_size=48).config])):
        traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(q, k, v)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    rows, heads, groups = own
    for call in ("__cudnn$fmhaScaleBiasSoftmax(", "__cudnn$fmhaScaleBiasSoftmaxBackward("):
        given = next(line for line in text.splitlines() if call in line).split(" : (")[-1]
        assert f"tensor<{rows}x{S}x{heads}x64xbf16>, tensor<{rows}x{S}x{groups}x64" in given


@pytest.mark.parametrize(
    ("name", "platform", "better"),
    [("splash", "cpu", "plain"), ("cudnn", "tpu", "splash or plain"), ("splash", "gpu", "cudnn")],
)
def test_a_platform_without_the_kernel(name, platform, better):
    with pytest.raises(InputError, match=f"attention {name} .* {platform.upper()}: {better}"):
        attention.check_platform(name, platform)
