"""Meshes: which are refused, and how; what lies where."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from glm_jax.config import GLMConfig
from glm_jax.errors import InputError
from glm_jax.mesh import MeshConfig, check, check_rows, make_mesh, on_mesh
from glm_jax.model import GLM
from glm_jax.presets import preset
from glm_jax.sharding import placed, spec

CHATGLM3, GLM4_32B, AIR = (
    preset(name) for name in ("chatglm3-6b", "glm-4-32b-0414", "glm-4.5-air")
)
SMALL = GLMConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=8, num_key_value_heads=2, head_dim=8,
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "model", "devices", "told"),
    [
        ({"fsdp": 8}, CHATGLM3, 16, r"8 devices \(fsdp 8\), but there are 16; fsdp 16 would do"),
        ({"tensor": 64}, CHATGLM3, 64, r"tensor \(64\) must divide num_attention_heads \(32\); .*"),
        ({"fsdp": 4, "tensor": 3}, GLM4_32B, 12, r"num_key_value_heads \(2\).* would do"),
        ({"fsdp": 3}, CHATGLM3, 3, r"fsdp \(3\) must divide hidden_size \(4096\); data 3 would do"),
        ({"expert": 8}, CHATGLM3, 8, r"expert \(8\): the model has no experts; fsdp 8 would do"),
        ({"expert": 3}, AIR, 3, r"expert \(3\) must divide n_routed_experts \(128\)"),
        ({"data": 3, "slices": 2}, CHATGLM3, 3, r"slices \(2\) must divide data \(3\)"),
    ],
)  # fmt: skip
def test_meshes_that_will_not_do_are_refused_with_the_nearest_that_would(
    config, model, devices, told
):
    with pytest.raises(InputError, match=f"mesh: .*{told}"):
        check(MeshConfig(**config), [model], devices)


def test_what_is_said_to_do_does():
    for devices in (2, 8, 12, 64):
        for wanted in (MeshConfig(tensor=devices), MeshConfig(fsdp=devices), MeshConfig()):
            for model in (CHATGLM3, GLM4_32B, AIR):
                try:
                    check(wanted, [model], devices)
                except InputError as error:
                    sizes = str(error).split("; ")[-1].removesuffix(" would do").split(", ")
                    named = dict(size.split() for size in sizes)
                    check(MeshConfig(**{k: int(n) for k, n in named.items()}), [model], devices)


def test_rows_that_the_mesh_does_not_divide_are_refused():
    with pytest.raises(InputError, match=r"batch_size \(60\): .* 8 ways .*; 56 or 64 would do"):
        check_rows(MeshConfig(data=2, fsdp=4, tensor=2), {"batch_size": 60})
    with pytest.raises(InputError, match=r"update_rows \(4\): .*; 8 would do"):
        check_rows(MeshConfig(fsdp=8), {"batch_size": 64, "update_rows": 4})


def test_two_dimensions_over_one_axis_are_refused():
    mesh = make_mesh(MeshConfig(fsdp=8), [CHATGLM3])
    with pytest.raises(InputError, match="fsdp would split both embed and ffn"):
        spec((16, 16), ("embed", "ffn"), mesh, {"embed": ("fsdp",), "ffn": ("fsdp",)})


@pytest.mark.parametrize("tensor", [2, 4, 8])
def test_heads_are_split_no_further_than_there_are(tensor):
    """Two key/value heads: each device has one, beside its share of the queries."""
    model = nnx.eval_shape(lambda: GLM(SMALL, nnx.Rngs(0)))
    mesh = make_mesh(MeshConfig(data=8 // tensor, tensor=tensor), [SMALL])
    for w, heads in ((model.blocks.k, 1), (model.blocks.q, 8 // tensor)):
        parts = spec(w.shape, w.get_metadata("axes"), mesh)
        assert NamedSharding(mesh, parts).shard_shape(w.shape)[2] == heads


def test_for_decoding_no_weight_is_left_to_gather():
    model = GLM(SMALL, nnx.Rngs(0))
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2), [SMALL])
    with on_mesh(mesh):
        given = placed(model, mesh)
        ready = jax.jit(GLM.for_decoding)(given)
    for (path, w), whole in zip(
        jax.tree.leaves_with_path(ready), jax.tree.leaves(model), strict=True
    ):
        np.testing.assert_array_equal(w, whole)
        assert "fsdp" not in str(w.sharding.spec), path
    assert "fsdp" in str(given.blocks.q[...].sharding.spec)
