"""Bytes of a run's arrays on a chip, from their shapes and where a mesh would split them."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, Mesh

from glm_jax.config import GLMConfig
from glm_jax.mesh import MeshConfig, abstract_mesh
from glm_jax.model import GLM
from glm_jax.sharding import GENERATION, TRAINING, Rules, weight_sharding
from glm_jax.train.plan.program import Config, Program, memory_of

Split = Mesh | AbstractMesh


class Weights(NamedTuple):
    """A model's, on a chip."""

    model: GLMConfig
    cast: int  # in the compute dtype, split as in training
    copied: int  # the same; 0 where the parameters are in that dtype already
    gathered: int  # in the compute dtype, whole along fsdp
    turned: int  # of these, gate and up, of which a loop over tokens reads a copy laid out anew
    gradient: int  # in the dtype of the parameters
    ends: int  # of it, what is not of the layers


class Sizes(NamedTuple):
    """All of a run that depends on its mesh, and not on how many rows go through at a time."""

    mesh: MeshConfig
    abstract: AbstractMesh
    declared: dict[str, int]  # by kind
    trained: list[Weights]
    frozen: list[Weights]


def sizes(config: Config, planned: Program) -> Sizes:
    """Weights on a chip of the configuration's mesh, which need not be there."""
    mesh = abstract_mesh(config.mesh, planned.models)
    dtype = memory_of(config).compute_dtype
    declared = {kind: bytes_a_chip(tree, mesh) for kind, tree in planned.declared.items()}
    trained, frozen = (
        [_weights(model, mesh, dtype) for model in _models(planned.declared.get(kind))]
        for kind in ("parameters", "frozen")
    )
    return Sizes(config.mesh, mesh, declared, trained, frozen)


def bytes_a_chip(tree: Any, mesh: Split, rules: Rules = TRAINING, dtype: str | None = None) -> int:
    """Bytes of a chip's part of all arrays: weights split as the rules say, all else whole.

    `dtype`: that of the weights, in place of their own.
    """
    return sum(_bytes(leaf, mesh, rules, dtype) for _, leaf in _leaves(tree))


def largest(kinds: dict[str, Any], mesh: Split, number: int = 5) -> list[dict[str, Any]]:
    """The largest arrays on a chip: name, shape of the whole, bytes a chip."""
    rows = [
        {
            "name": f"{kind}{jax.tree_util.keystr(path)}",
            "shape": list(leaf.shape),
            "bytes": _bytes(leaf, mesh, TRAINING, None),
        }
        for kind, tree in kinds.items()
        for path, leaf in _leaves(tree)
    ]
    return sorted(rows, key=lambda row: -row["bytes"])[:number]


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree.leaves_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def _bytes(leaf: Any, mesh: Split, rules: Rules, dtype: str | None) -> int:
    if not isinstance(leaf, nnx.Param):
        return math.prod(leaf.shape) * leaf.dtype.itemsize
    shape = weight_sharding(leaf, mesh, rules).shard_shape(leaf.shape)
    return math.prod(shape) * jnp.dtype(dtype or leaf.dtype).itemsize


def _weights(model: GLM, mesh: AbstractMesh, dtype: str) -> Weights:
    blocks = [b for b in (model.blocks, model.dense_blocks) if b is not None]
    loose = [getattr(b, name) for b in blocks for name in ("gate", "up") if hasattr(b, name)]
    ends = [model.embedding, model.norm, model.head]
    cast = bytes_a_chip(model, mesh, TRAINING, dtype)
    return Weights(
        model.config,
        cast,
        0 if model.head.dtype == dtype else cast,
        bytes_a_chip(model, mesh, GENERATION, dtype),
        bytes_a_chip(loose, mesh, GENERATION, dtype),
        bytes_a_chip(model, mesh),
        bytes_a_chip(ends, mesh),
    )


def _models(tree: Any) -> list[GLM]:
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, GLM))
    return [leaf for leaf in leaves if isinstance(leaf, GLM)]
