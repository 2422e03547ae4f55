"""Where weights, rows and the cache lie on a mesh of devices.

A mesh has five axes. `data` and `fsdp` split the rows of a batch, `fsdp` also the hidden dimension
of the weights; `expert` splits rows and experts; `group` and `tensor` together split heads, ffn and
vocabulary, `group` as far as there are key/value heads. In programs everything is said by logical
axes, and nothing is said without a mesh: they run unchanged on one device.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from glm_jax.errors import InputError

Tree = TypeVar("Tree")
Rules = Mapping[str, tuple[str, ...]]

# An axis that the mesh lacks splits nothing.
SPLIT = "group", "tensor"
TRAINING: Rules = {
    "embed": ("fsdp",),
    "vocab": SPLIT,
    "q_heads": SPLIT,
    "kv_heads": ("group",),
    "ffn": SPLIT,
    "experts": ("expert",),
    "rows": ("data", "fsdp", "expert"),
}
# A step of decoding reads every weight: none is gathered for it.
GENERATION: Rules = {**TRAINING, "embed": ()}


def spec(
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    mesh: Mesh | AbstractMesh,
    rules: Rules = TRAINING,
) -> PartitionSpec:
    """How an array with these logical axes, which are its last, is split.

    Raises InputError where the mesh does not divide a dimension, or would split two by one axis.
    """
    parts: list[tuple[str, ...] | None] = [None] * (len(shape) - len(axes))
    taken: dict[str, str] = {}
    for size, axis in zip(shape[len(parts) :], axes, strict=True):
        over = tuple(a for a in rules.get(axis or "", ()) if mesh.shape.get(a, 1) > 1)
        ways = _ways(mesh, over)
        if size % ways:
            raise InputError(
                f"the mesh splits {axis} {ways} ways ({' x '.join(over)}), which does not divide "
                f"its {size}"
            )
        for a in over:
            if a in taken:
                raise InputError(f"the mesh axis {a} would split both {taken[a]} and {axis}")
            taken[a] = axis
        parts.append(over or None)
    while parts and parts[-1] is None:  # as JAX writes it: another form would compile anew
        parts.pop()
    return PartitionSpec(*parts)


def weight_sharding(
    param: nnx.Param, mesh: Mesh | AbstractMesh, rules: Rules = TRAINING
) -> NamedSharding:
    """The sharding of a weight by its logical axes."""
    return NamedSharding(mesh, spec(param.shape, param.get_metadata("axes"), mesh, rules))


def constrained(x: jax.Array, *axes: str | None) -> jax.Array:
    """Inside a program: the array, split by these logical axes, which are all of its own.

    What cannot be split evenly is not split: a last, smaller batch, say.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, divided(x.shape, *axes))


def divided(shape: tuple[int, ...], *axes: str | None) -> PartitionSpec:
    """Inside a program on a mesh: how `constrained` splits an array of this shape."""
    mesh = jax.sharding.get_abstract_mesh()
    known = tuple(a if _divides(mesh, a, n) else None for a, n in zip(axes, shape, strict=True))
    return spec(shape, known, mesh)


def parts(axis: str) -> int:
    """Inside a program on a mesh: into how many parts it splits a logical axis."""
    return _ways(jax.sharding.get_abstract_mesh(), TRAINING[axis])


def rows_split(tree: Tree) -> Tree:
    """Inside a program: arrays whose first axis is one of rows, split over the mesh."""
    return jax.tree.map(
        lambda x: constrained(x, "rows", *[None] * (x.ndim - 1)) if x.ndim else x, tree
    )


def laid_out(tree: Tree, rules: Rules = TRAINING) -> Tree:
    """Inside a program: weights, or what is as large (gradients, moments), where the rules say.

    Leaves that are no weights are left alone.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return tree

    def of(leaf: Any) -> Any:
        if not _is_weight(leaf):
            return leaf
        parts = spec(leaf.shape, leaf.get_metadata("axes"), mesh, rules)
        return jax.tree.map(lambda w: jax.lax.with_sharding_constraint(w, parts), leaf)

    return jax.tree.map(of, tree, is_leaf=_is_weight)


def replicated(tree: Tree) -> Tree:
    """Inside a program: arrays that every device holds whole, as the host reads them."""
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    whole = PartitionSpec()
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, whole), tree)


def placed(tree: Tree, mesh: Mesh | None) -> Tree:
    """On the host: weights, and what is as large, put where they belong on the mesh, all else on
    every device; shapes are given their shardings. Without a mesh the tree as it is."""
    if mesh is None:
        return tree
    whole = NamedSharding(mesh, PartitionSpec())

    def of(leaf: Any) -> Any:
        sharding = weight_sharding(leaf, mesh) if _is_weight(leaf) else whole
        return jax.tree.map(partial(_put, sharding=sharding), leaf)

    return jax.tree.map(of, tree, is_leaf=_is_weight)


def _put(x: Any, sharding: NamedSharding) -> Any:
    if isinstance(x, jax.ShapeDtypeStruct):
        return x.update(sharding=sharding)
    if sharding.is_fully_addressable or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return jax.device_put(x, sharding)
    # every process has all of x, and gives its own devices their parts
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])


def gathered(x: jax.Array) -> np.ndarray:
    """On the host: the whole array. When parts are other processes', all of them must call this."""
    if x.is_fully_addressable:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def _is_weight(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Param) and "axes" in leaf.get_metadata()


def _divides(mesh: AbstractMesh, axis: str | None, size: int) -> bool:
    return size % _ways(mesh, TRAINING.get(axis or "", ())) == 0


def _ways(mesh: Mesh | AbstractMesh, axes: tuple[str, ...]) -> int:
    ways = 1
    for axis in axes:
        ways *= mesh.shape.get(axis, 1)
    return ways
