"""Which rows of which stored tensor make up which weight, as the weights' declarations say."""

import itertools
import re
from collections import defaultdict
from math import prod
from typing import NamedTuple

import jax
from flax import nnx

from glm_jax.checkpoint.config_files import Naming
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.weights import Disk


class Piece(NamedTuple):
    """Rows of a stored tensor: one layer's (one expert's) matrix of the weight `leaf`."""

    leaf: int
    "place among the model's weights, as `declared` lists them"
    index: tuple[int, ...]
    "in the weight's leading, stacked dimensions"
    start: int
    stop: int


class Tensor(NamedTuple):
    """A tensor that a checkpoint of the model has."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


class Matrix(NamedTuple):
    """A weight's form on disk: `stack` tensors of [rows, columns]."""

    stack: tuple[int, ...]
    rows: int
    columns: int
    transposed: bool
    "the weight's dimensions are [*stack, *columns, *rows]; otherwise [*stack, *rows, *columns]"
    vector: bool


def declared(model: GLM) -> list[nnx.Param]:
    """The weights of a model, in a fixed order."""
    leaves = jax.tree.leaves(model, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))
    return [leaf for leaf in leaves if isinstance(leaf, nnx.Param)]


def matrix(param: nnx.Param) -> Matrix:
    """The form of a weight on disk."""
    disk: Disk = param.get_metadata("disk")
    depth = disk.transformers.name.count("{")
    stack, inner = param.shape[:depth], param.shape[depth:]
    if disk.inputs is None:
        return Matrix(stack, inner[0], prod(inner[1:]), transposed=False, vector=False)
    columns, rows = prod(inner[: disk.inputs]), prod(inner[disk.inputs :])
    return Matrix(stack, rows, columns, transposed=True, vector=disk.inputs == 0)


def matrices(model: GLM) -> int:
    """How many tensors there would be if none held several weights."""
    return sum(prod(matrix(param).stack) for param in declared(model))


def tensors(model: GLM, naming: Naming) -> dict[str, Tensor]:
    """All tensors of a checkpoint of `model`, in the order of the layers."""
    first = model.config.first_k_dense_replace if model.dense_blocks is not None else 0
    parts: dict[str, dict[int, tuple[int, tuple[int, ...], Matrix]]] = defaultdict(dict)
    for leaf, (path, param) in enumerate(_with_paths(model)):
        form, place = matrix(param), getattr(param.get_metadata("disk"), naming)
        if place is None:
            raise InputError(f"naming {naming!r} has no name for {path}")
        offset = first if path.startswith(".blocks") else 0
        for index in itertools.product(*map(range, form.stack)):
            names = dict(zip(("layer", "expert"), index, strict=False))
            if names:
                names["layer"] += offset
            parts[place.name.format(**names)][place.part] = leaf, index, form
    return {name: _join(parts[name]) for name in sorted(parts, key=_natural)}


def _join(parts: dict[int, tuple[int, tuple[int, ...], Matrix]]) -> Tensor:
    pieces, start = [], 0
    for _, (leaf, index, form) in sorted(parts.items()):
        pieces.append(Piece(leaf, index, start, start + form.rows))
        start += form.rows
    shape = (start,) if form.vector else (start, form.columns)
    return Tensor(shape, tuple(pieces))


def _with_paths(model: GLM) -> list[tuple[str, nnx.Param]]:
    leaves = jax.tree_util.tree_leaves_with_path(
        model, is_leaf=lambda leaf: isinstance(leaf, nnx.Param)
    )
    return [
        (jax.tree_util.keystr(path), leaf) for path, leaf in leaves if isinstance(leaf, nnx.Param)
    ]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Layer 10 after layer 2, and what is in no layer around them."""
    return [(1, int(x), "") if x.isdigit() else (0, 0, x) for x in re.split(r"(\d+)", name)]
