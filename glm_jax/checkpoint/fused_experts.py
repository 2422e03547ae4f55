"""Experts that lie in one tensor a layer, as transformers 5 holds them, seen one by one."""

import dataclasses
import re

from glm_jax.checkpoint.stored_tensor import StoredTensor

_MOST = 10_000  # experts: a header can say any number
# [experts, gate and up, hidden] and [experts, hidden, ffn]
_FUSED = re.compile(r"(.*\.mlp\.experts)\.(gate_up|down)_proj$")


def separated(stored: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors under the names that released checkpoints have: one matrix an expert.

    Nothing is read: a matrix of an expert is a range of the tensor that holds them all. A tensor of
    another rank, or whose gate and up are not of one size, is left as it is.
    """
    found: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        match = _FUSED.match(name)
        if not match or len(tensor.shape) != 3 or not 0 < tensor.shape[0] <= _MOST:
            found[name] = tensor
            continue
        kinds = ("gate", "up") if match[2] == "gate_up" else ("down",)
        experts, rows, columns = tensor.shape
        if rows % len(kinds):
            found[name] = tensor
            continue
        shape = (rows // len(kinds), columns)
        size = shape[0] * columns * tensor.dtype.itemsize
        for i in range(experts * len(kinds)):
            own = f"{match[1]}.{i // len(kinds)}.{kinds[i % len(kinds)]}_proj.weight"
            found[own] = dataclasses.replace(tensor, offset=tensor.offset + i * size, shape=shape)
    return found
