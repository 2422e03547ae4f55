"""A model in parts that an optimiser treats one at a time: each layer, and what is outside of them.

Layers of one kind lie stacked: a part `[L, ...]` holds all of them.
"""

from typing import Any

import jax

from glm_jax.model import GLM

STACKS = "dense_blocks", "blocks"


def stacks(model: Any) -> tuple[str, ...]:
    """The names of the parts that are stacks of layers."""
    return tuple(name for name in STACKS if getattr(model, name, None) is not None)


def parts(model: Any) -> dict[str, Any]:
    """The stacks by name, and under `rest` the weights outside of them. Any other tree of arrays
    is one part."""
    if not isinstance(model, GLM):
        return {"rest": model}
    rest = {"embedding": model.embedding, "norm": model.norm, "head": model.head}
    return {"rest": rest} | {name: getattr(model, name) for name in stacks(model)}


def joined(model: Any, changed: dict[str, Any]) -> Any:
    """The model with these parts in place of its own."""
    if not isinstance(model, GLM):
        return changed["rest"]
    other = jax.tree.map(lambda w: w, model)
    for name, part in (changed["rest"] | {n: changed[n] for n in stacks(model)}).items():
        setattr(other, name, part)
    return other
