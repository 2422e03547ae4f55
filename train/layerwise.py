"""The fused update: a layer's weights move as soon as its gradient is known (LOMO, Lv et al. 2023).

The backward pass runs over the layers from the last to the first with the weights and the
optimiser's state of all of them in the loop's carry, where a layer's are written over: no more than
one layer's gradient is ever in memory. For JAX it is the derivative of the stack of layers, by
`jax.custom_vjp`; what it gives as the gradient of weights and state are their new values.

Dims: L layers, B rows, T tokens, D hidden.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from glm_jax.attention import Attention
from glm_jax.block import Block
from glm_jax.model import GLM
from glm_jax.sharding import constrained, laid_out
from glm_jax.sight import Sight
from glm_jax.train.optimizer import Optimizer, scaled
from glm_jax.train.parts import joined, parts
from glm_jax.train.scoring import in_dtype

Loss = Callable[[GLM], tuple[Float[Array, ""], Any]]
Streams = tuple[Float[Array, "_ _ _"], ...]  # [B, T, D], each with a B and T of its own
Change = Callable[[Block, Block, Any, Any], tuple[Block, Any]]
"""(a layer's gradient, its weights, its state, `Layers.given`) -> its new weights and state."""


class Layers(NamedTuple):
    """A stack of layers while the backward pass is under way."""

    blocks: Block
    state: Any  # the optimiser's, in floats
    given: Any  # what else a change has to know
    squares: Float[Array, ""]  # 0; its "gradient" is the sum of the gradient's squares


class Updated(NamedTuple):
    value: Float[Array, ""]
    aux: Any
    model: GLM
    optimiser: Any
    norm: Float[Array, ""]  # of the whole gradient
    finite: Bool[Array, ""]  # loss and gradient; a layer whose gradient is not stays as it was


def update(
    loss: Loss,
    model: GLM,
    state: dict[str, optax.OptState],
    optimiser: Optimizer,
    dtype: str,
    attention: Attention = "plain",
    learns: Bool[Array, ""] | bool = True,
) -> Updated:
    """One step of the optimiser along the gradient of `loss(model) -> (value, aux)`.

    The loss may ask the model for hidden states once: `hidden`, or `hidden_of` for several texts.
    To clip by the global norm takes a backward pass of its own, which finds it.
    """
    known, learns = jnp.float32(0.0), jnp.asarray(learns)
    prepared = partial(in_dtype, dtype=dtype, attention=attention)
    if optimiser.max_norm is not None:
        *_, squares = _passed(loss, prepared, model, None, {}, None)
        known = jnp.sqrt(squares)
        learns &= jnp.isfinite(squares)

    def step(gradient: Any, weights: Any, own: Any, norm: Float[Array, ""]) -> tuple[Any, Any]:
        gradient = scaled(gradient, norm, optimiser.max_norm)
        updates, moved = optimiser.part.update(gradient, own, weights)
        return optax.apply_updates(weights, updates), moved

    def change(gradient: Block, block: Block, own: Any, given: Any) -> tuple[Block, Any]:
        counting = _like(own, jax.eval_shape(optimiser.part.init, block))
        learns, norm = given
        moves = learns & jnp.isfinite(optax.tree.norm(gradient))
        new, moved = _where(moves, step(gradient, block, counting, norm), (block, counting))
        return new, _in_floats(moved)

    stacked = {name: own for name, own in state.items() if name != "rest"}
    floating = {name: _in_floats(own) for name, own in stacked.items()}
    found, aux, gradient, new, squares = _passed(
        loss, prepared, model, change, floating, (learns, known)
    )
    finite = jnp.isfinite(found) & jnp.isfinite(squares)
    rest = parts(model)["rest"], state["rest"]
    pairs = {"rest": _where(finite & learns, step(gradient, *rest, known), rest)}
    pairs |= {name: (new[name].blocks, _like(new[name].state, stacked[name])) for name in new}
    model = joined(model, {name: pair[0] for name, pair in pairs.items()})
    state = {name: pairs[name][1] for name in state}
    return Updated(found, aux, laid_out(model), laid_out(state), jnp.sqrt(squares), finite)


def _passed(
    loss: Loss, prepared: Callable[[GLM], GLM], model: GLM, change: Change | None,
    state: dict[str, Any], given: Any,
) -> tuple[Float[Array, ""], Any, Any, dict[str, Layers], Float[Array, ""]]:  # fmt: skip
    """Forward and backward: (value, aux, gradient of what is outside of the layers, the stacks as
    they have become, sum of the squares of the whole gradient)."""
    own = parts(model)
    rest, zero = own.pop("rest"), jnp.float32(0.0)
    layers = {n: Layers(blocks, state.get(n), given, zero) for n, blocks in own.items()}

    def value(rest: Any, layers: dict[str, Layers]):
        other = prepared(joined(model, {"rest": rest} | own))
        # in the order of the layers, which JAX does not keep
        other.stacks = {name: partial(_stack, change, layers[name]) for name in own}
        return loss(other)

    grad = jax.value_and_grad(value, argnums=(0, 1), has_aux=True, allow_int=True)
    (found, aux), (gradient, new) = grad(rest, layers)
    gradient = laid_out(gradient)
    squares = sum((one.squares for one in new.values()), optax.tree.norm(gradient, squared=True))
    return found, aux, gradient, new, squares


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _stack(
    change: Change | None, layers: Layers, streams: Streams, sights: tuple[Sight, ...]
) -> Streams:
    return _forward(change, layers, streams, sights)[0]


def _forward(change, layers, streams, sights):
    def one(streams: Streams, given):
        return _layer(given[0], streams, sights, given[1]), streams

    depth = jax.tree.leaves(layers.blocks)[0].shape[0]
    outputs, inputs = jax.lax.scan(one, streams, (layers.blocks, jnp.arange(depth)))
    return outputs, (layers, inputs, sights)


def _backward(change, kept, gradients: Streams):
    layers, inputs, sights = kept

    def at(tree: Any, layer) -> Any:
        return jax.tree.map(lambda w: jax.lax.dynamic_index_in_dim(w, layer, 0, False), tree)

    def put(tree: Any, new: Any, layer) -> Any:
        one = partial(jax.lax.dynamic_update_index_in_dim, index=layer, axis=0)
        return jax.tree.map(one, tree, new)

    def back(carry, given):
        gradients, pair, squares = carry
        layer, streams = given
        block, own = at(pair, layer)
        _, pull = jax.vjp(lambda *of: _layer(*of, sights, layer), block, streams)
        gradient, gradients = pull(gradients)
        gradient = laid_out(gradient)
        gradients = tuple(constrained(g, "rows", None, None) for g in gradients)
        squares += optax.tree.norm(gradient, squared=True)
        if change is not None:
            pair = put(pair, change(gradient, block, own, layers.given), layer)
        return (gradients, pair, squares), None

    depth = jax.tree.leaves(layers.blocks)[0].shape[0]
    start = gradients, (layers.blocks, layers.state), jnp.float32(0.0)
    (gradients, (blocks, state), squares), _ = jax.lax.scan(
        back, start, (jnp.arange(depth), inputs), reverse=True
    )
    return Layers(blocks, state, _nothing(layers.given), squares), gradients, _nothing(sights)


_stack.defvjp(_forward, _backward)


def _layer(
    block: Block, streams: Streams, sights: tuple[Sight, ...], layer: Int[Array, ""]
) -> Streams:
    # or XLA gathers the weights of all layers at once, before the loop; and the factor, which is 1,
    # changes with the layer for all it knows: or it casts all of them there
    block, one = laid_out(block), 1.0 - (layer >> 30).astype(jnp.float32)
    block = jax.tree.map(lambda w: (w * one).astype(streams[0].dtype), block)
    outputs = (block(x, sight, None, 0)[0] for x, sight in zip(streams, sights, strict=True))
    return tuple(constrained(x, "rows", None, None) for x in outputs)


def _in_floats(state: Any) -> Any:
    """Counts as floats, exact up to 2^24: an integer has no gradient to be handed on as."""
    return jax.tree.map(
        lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.integer) else x, state
    )


def _like(state: Any, typed: Any) -> Any:
    """The state in the dtypes of another."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), state, typed)


def _where(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _nothing(tree: Any) -> Any:
    """The gradient of what has none."""

    def of(x: Any) -> Any:
        if jnp.issubdtype(jnp.result_type(x), jnp.floating):
            return jnp.zeros_like(x)
        return np.zeros(jnp.shape(x), jax.dtypes.float0)

    return jax.tree.map(of, tree)
