"""The fused update: a layer's weights move as soon as its gradient is known (LOMO, Lv et al. 2023).

The backward pass runs over the layers from the last to the first with the weights and moments of
all of them in the loop's carry, where a layer's are written over: no more than one layer's gradient
is ever in memory. For JAX it is the derivative of the stack of layers, by `jax.custom_vjp`; what it
gives as the gradient of weights and moments are their new values.

Dims: L layers, B rows, T tokens, D hidden.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from glm_jax.attention import Attention
from glm_jax.block import Block
from glm_jax.model import GLM
from glm_jax.sharding import constrained, laid_out
from glm_jax.sight import Sight
from glm_jax.train.scoring import in_dtype

STACKS = "dense_blocks", "blocks"
Streams = tuple[Float[Array, "_ _ _"], ...]  # [B, T, D], each with a B and T of its own


class Learning(NamedTuple):
    """What layers need to learn while the backward pass is under way."""

    moments: list[Block]  # stacked, one for each copy of the weights that the optimiser keeps
    others: Any  # of its state: counts; and whether the model learns at all
    squares: Float[Array, ""]  # 0; its "gradient" is the sum of the gradient's squares


class Updated(NamedTuple):
    value: Float[Array, ""]
    aux: Any
    model: GLM
    optimiser: optax.OptState
    norm: Float[Array, ""]  # of the whole gradient
    finite: Bool[Array, ""]  # loss and gradient; a layer whose gradient is not stays as it was


def update(
    loss: Callable[[GLM], tuple[Float[Array, ""], Any]],
    model: GLM,
    state: optax.OptState,
    optimiser: optax.GradientTransformation,
    dtype: str,
    attention: Attention = "plain",
    learns: Bool[Array, ""] | bool = True,
) -> Updated:
    """One step of the optimiser along the gradient of `loss(model) -> (value, aux)`.

    The loss may ask the model for hidden states once: `hidden`, or `hidden_of` for several texts.
    The optimiser treats each weight for itself: it does not clip by the global norm.
    """
    names = [name for name in STACKS if getattr(model, name) is not None]
    leaves, structure = jax.tree.flatten(state, is_leaf=_is_model)
    copies = [leaf for leaf in leaves if _is_model(leaf)]
    others = [None if _is_model(leaf) else leaf for leaf in leaves]

    def step(gradient: Any, weights: Any, moments: list[Any], others: Any) -> tuple:
        """One step for a part of the model: (its weights, moments, the optimiser's counts)."""
        left = iter(moments)
        parts = [next(left) if other is None else other for other in others]
        updates, moved = optimiser.update(gradient, structure.unflatten(parts), weights)
        parts = structure.flatten_up_to(moved)
        moments = [part for part, other in zip(parts, others, strict=True) if other is None]
        counts = [None if o is None else p for p, o in zip(parts, others, strict=True)]
        return optax.apply_updates(weights, updates), moments, counts

    def change(gradient: Block, block: Block, moments: list[Block], given: Any) -> tuple:
        others, learns = given
        square = optax.tree.norm(gradient, squared=True)
        new = step(gradient, block, moments, others)[:2]
        return *_where(jnp.isfinite(square) & learns, new, (block, moments)), square

    def value(rest: dict[str, Any], stacks: dict[str, Any], squares: Float[Array, ""]):
        other = in_dtype(_with(model, rest), dtype, attention)
        given = others, jnp.asarray(learns)
        other.stacks = {
            # in the order of the layers, which JAX does not keep
            name: partial(
                _stack, change, stacks[name][0], Learning(stacks[name][1], given, squares)
            )
            for name in names
        }
        return loss(other)

    rest = _rest(model)
    stacks = {n: (getattr(model, n), [getattr(copy, n) for copy in copies]) for n in names}
    (found, aux), (gradient, moved, squares) = jax.value_and_grad(
        value, argnums=(0, 1, 2), has_aux=True
    )(rest, stacks, jnp.float32(0.0))
    gradient = laid_out(gradient)
    squares += optax.tree.norm(gradient, squared=True)
    finite = jnp.isfinite(found) & jnp.isfinite(squares)
    moments = [_rest(copy) for copy in copies]
    weights, new, counts = step(gradient, rest, moments, others)
    old = rest, moments, others
    weights, new, counts = _where(finite & learns, (weights, new, counts), old)
    whole = [
        _with(copy, part | {n: moved[n][1][i] for n in names})
        for i, (copy, part) in enumerate(zip(copies, new, strict=True))
    ]
    left = iter(whole)
    state = structure.unflatten([next(left) if c is None else c for c in counts])
    model = _with(model, weights | {n: moved[n][0] for n in names})
    return Updated(found, aux, laid_out(model), laid_out(state), jnp.sqrt(squares), finite)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _stack(
    change: Callable, blocks: Block, learning: Learning, streams: Streams, sights: tuple[Sight, ...]
) -> Streams:
    return _forward(change, blocks, learning, streams, sights)[0]


def _forward(change, blocks, learning, streams, sights):
    def layer(streams: Streams, block: Block):
        return _layer(block, streams, sights), streams

    outputs, inputs = jax.lax.scan(layer, streams, blocks)
    return outputs, (blocks, learning, inputs, sights)


def _backward(change, kept, gradients: Streams):
    blocks, learning, inputs, sights = kept

    def at(tree: Any, layer) -> Any:
        return jax.tree.map(lambda w: jax.lax.dynamic_index_in_dim(w, layer, 0, False), tree)

    def put(tree: Any, new: Any, layer) -> Any:
        one = partial(jax.lax.dynamic_update_index_in_dim, index=layer, axis=0)
        return jax.tree.map(one, tree, new)

    def back(carry, given):
        gradients, (blocks, moments), squares = carry
        layer, streams = given
        block, own = at((blocks, moments), layer)
        _, pull = jax.vjp(lambda *of: _layer(*of, sights), block, streams)
        gradient, gradients = pull(gradients)
        gradients = tuple(constrained(g, "rows", None, None) for g in gradients)
        *new, square = change(laid_out(gradient), block, own, learning.others)
        return (gradients, put((blocks, moments), tuple(new), layer), squares + square), None

    depth = jax.tree.leaves(blocks)[0].shape[0]
    start = gradients, (blocks, learning.moments), jnp.float32(0.0)
    (gradients, (blocks, moments), squares), _ = jax.lax.scan(
        back, start, (jnp.arange(depth), inputs), reverse=True
    )
    learned = Learning(moments, _nothing(learning.others), squares)
    return blocks, learned, gradients, _nothing(sights)


_stack.defvjp(_forward, _backward)


def _layer(block: Block, streams: Streams, sights: tuple[Sight, ...]) -> Streams:
    block = laid_out(block)  # or XLA gathers the weights of all layers at once, before the loop
    outputs = (block(x, sight, None, 0)[0] for x, sight in zip(streams, sights, strict=True))
    return tuple(constrained(x, "rows", None, None) for x in outputs)


def _is_model(leaf: Any) -> bool:
    return isinstance(leaf, GLM)


def _rest(model: GLM) -> dict[str, Any]:
    """The weights outside of the layers."""
    return {"embedding": model.embedding, "norm": model.norm, "head": model.head}


def _with(model: GLM, parts: dict[str, Any]) -> GLM:
    other = jax.tree.map(lambda w: w, model)
    for name, part in parts.items():
        setattr(other, name, part)
    return other


def _where(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _nothing(tree: Any) -> Any:
    """The gradient of what has none."""

    def of(x: Array) -> Any:
        if jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.zeros_like(x)
        return np.zeros(x.shape, jax.dtypes.float0)

    return jax.tree.map(of, tree)
