"""The GLM: an embedding, stacked and scanned blocks, a norm and a head.

Dimensions in names: see `glm_jax.layers`. A model is a pytree of its weights: it goes through
`jax.jit`, `jax.grad` and optax as it is.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from glm_jax.block import Angles, Block
from glm_jax.config import GLMConfig
from glm_jax.errors import InputError
from glm_jax.layers import Cache, project, rms_norm, rotary, turned
from glm_jax.sharding import GENERATION, constrained, laid_out
from glm_jax.weights import Disk, Place, fan_in, normal, ones, weight

# Stacks of at most so many layers are unrolled: in a loop, XLA for CPU copies the weights of each
# layer, and every activation that the backward pass needs.
UNROLLED = 12

CACHE_AXES = None, "rows", "kv_heads", None, None

Remat = Literal["none", "full", "products"]
# What the backward pass keeps of a layer: with `full` its input, with `products` also the results
# of its matrix products but for attention's; the rest is computed again.
POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Sight(NamedTuple):
    """What the tokens of a text have to know of their places."""

    angles: Angles
    mask: Bool[Array, "B T T"]


Head = Literal["lm", "reward", "value"]
Tokens = Int[Array | np.ndarray, "B T"]
Mask = Bool[Array | np.ndarray, "B T"] | Int[Array | np.ndarray, "B T"]


class GLM(nnx.Module):
    """A decoder under a head: `lm`, logits of every token's successor; `reward`, a score of the
    whole text, read at its last real token; `value`, a score of every token."""

    def __init__(self, config: GLMConfig, rngs: nnx.Rngs, head: Head = "lm"):
        D, V = config.hidden_size, config.vocab_size
        embedding, norm = (
            Disk(inputs, Place(f"model.{name}.weight"), Place(f"transformer.{released}.weight"))
            for inputs, name, released in (
                (None, "embed_tokens", "embedding.word_embeddings"),
                (0, "norm", "encoder.final_layernorm"),
            )
        )
        dense = config.first_k_dense_replace if config.n_routed_experts else 0
        experts = config.num_hidden_layers - dense if config.n_routed_experts else 0
        self.config = config
        self.head_kind = head
        self.remat: Remat = "none"
        # what takes the place of the layers while they learn (`glm_jax.train.layerwise`)
        self.stacks: dict[str, Callable[..., Any]] | None = None
        self.embedding = weight(rngs, (V, D), ("vocab", "embed"), normal(1.0), embedding)
        # layers of one kind are one stack; those without experts come first
        self.dense_blocks = _stack(config, rngs, dense) if dense else None
        self.blocks = _stack(config, rngs, experts or config.num_hidden_layers, bool(experts))
        self.norm = weight(rngs, (D,), ("embed",), ones, norm)
        self.head = _head(config, rngs, head)

    def __call__(
        self, input_ids: Tokens, attention_mask: Mask | None = None
    ) -> Float[Array, "B T V"] | Float[Array, "B T"] | Float[Array, "B"]:
        """Logits `[B, T, V]`, values `[B, T]` or scores `[B]`, as the head is, in float32.

        Args:
          input_ids: `[B, T]` tokens.
          attention_mask: `[B, T]`, False or 0 at pads, which may lie anywhere; None: all real.
        """
        call = _call if self.stacks is None else _call.__wrapped__
        return call(self, *_checked(input_ids, attention_mask))

    def hidden(
        self,
        tokens_BxT: Int[Array, "B T"],
        mask_BxT: Bool[Array, "B T"],
        last: int | None = None,
    ) -> Float[Array, "B R D"]:
        """Final hidden states, normed. Pads (mask False) may lie anywhere and are never seen.

        `last`: only those of so many tokens at the end.
        """
        return self.hidden_of([(tokens_BxT, mask_BxT, last)])[0]

    def hidden_of(
        self, texts: Sequence[tuple[Int[Array, "_ _"], Bool[Array, "_ _"], int | None]]
    ) -> list[Float[Array, "_ _ _"]]:
        """`hidden` of several texts: (tokens, mask, last) of each."""
        if self.stacks is None:
            return [self._whole(tokens, mask, last=last)[0] for tokens, mask, last in texts]
        config = self.config
        sights = tuple(
            Sight(rotary(positions(mask), config.rotary_dim, config.rope_theta), causal(mask))
            for _, mask, _ in texts
        )
        streams = tuple(
            constrained(self.embedding[...][tokens], "rows", None, None) for tokens, _, _ in texts
        )
        for stack in self.stacks.values():
            streams = stack(streams, sights)
        return [
            rms_norm(x[:, -(last or x.shape[1]) :], self.norm[...], config.rms_norm_eps)
            for x, (_, _, last) in zip(streams, texts, strict=True)
        ]

    def hidden_states(
        self, input_ids: Tokens, attention_mask: Mask | None = None
    ) -> Float[Array, "L1 B T D"]:
        """The residual stream after the embedding and after each layer, before the last norm."""
        return _hidden_states(self, *_checked(input_ids, attention_mask))

    def outputs(self, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
        """The head alone, in float32: O = V logits, or one score."""
        return outputs(x, self.head)

    def extend(
        self,
        tokens_BxT: Int[Array, "B T"],
        positions_BxT: Int[Array, "B T"],
        mask_BxTxS: Bool[Array, "B T S"],
        cache: Cache,
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Hidden states of T more tokens, written to the cache where its column is; `mask` says
        which of its S columns, the new ones included, each token sees."""
        x, cache, _ = self._run(tokens_BxT, positions_BxT, mask_BxTxS, cache)
        return x, cache._replace(column=cache.column + tokens_BxT.shape[1])

    def rematerialised(self, remat: Remat) -> "GLM":
        """The model with this policy for its backward pass (Chen et al., 2016)."""
        other = jax.tree.map(lambda w: w, self)
        other.remat = remat
        return other

    def for_decoding(self) -> "GLM":
        """The model as a loop over tokens reads it, made once before.

        On a mesh, in the layout of generation. Without one, with weights of their own for each
        layer, unless it has too many layers, which saves cutting them out at every token.
        """
        other = jax.tree.map(lambda w: w, laid_out(self, GENERATION))
        if not jax.sharding.get_abstract_mesh().empty:
            return other  # a weight that is turned after it was laid out is gathered at each token
        for name in ("dense_blocks", "blocks"):
            blocks = getattr(self, name)
            if blocks is not None and _depth(blocks) <= UNROLLED:
                setattr(other, name, nnx.List([block.turned() for block in _layers(blocks)]))
        other.head = turned(self.head)
        return other

    def empty_cache(self, batch: int, length: int) -> Cache:
        """A cache of `length` columns; made inside the jitted program, so that it is never copied.

        A model that is made `for_decoding` has arrays of their own for each layer in it, too.
        """
        config, dtype = self.config, self.embedding[...].dtype
        layers, heads = config.num_hidden_layers, (batch, config.num_key_value_heads)
        k_shape, v_shape = (*heads, config.head_dim, length), (*heads, length, config.head_dim)
        if isinstance(self.blocks, nnx.List):
            k, v = ([jnp.zeros(s, dtype) for _ in range(layers)] for s in (k_shape, v_shape))
        else:
            k, v = (jnp.zeros((layers, *s), dtype) for s in (k_shape, v_shape))
        k, v = jax.tree.map(lambda z: constrained(z, *CACHE_AXES[-z.ndim :]), (k, v))
        return Cache(k, v, jnp.int32(0))

    def _whole(self, tokens_BxT, mask_BxT, *, keep: bool = False, last: int | None = None):
        mask_BxTxT = causal(mask_BxT)
        x, _, states = self._run(
            tokens_BxT, positions(mask_BxT), mask_BxTxT, None, keep=keep, last=last
        )
        return x, states

    def _run(self, tokens_BxT, positions_BxT, mask_BxTxS, cache, *, keep=False, last=None):
        config, last = self.config, last or tokens_BxT.shape[1]
        angles = rotary(positions_BxT, config.rotary_dim, config.rope_theta)

        def layer(carry, inputs, *, last=None):
            block, index = inputs
            x, cache = block(carry[0], angles, mask_BxTxS, carry[1], index, last)
            x = constrained(x, "rows", None, None)
            return (x, cache), x if keep else None

        def one(last=None):
            of = partial(layer, last=last)
            return of if self.remat == "none" else jax.checkpoint(of, policy=POLICIES[self.remat])

        # the cache rides in the carry: as scan inputs and outputs it would be copied every token
        x = constrained(self.embedding[...][tokens_BxT], "rows", None, None)
        carry, states, first = (x, cache), [], 0
        for blocks in (self.dense_blocks, self.blocks):
            if blocks is None:
                continue
            if _depth(blocks) > UNROLLED:
                inputs = blocks, jnp.arange(first, first + _depth(blocks))
                carry, kept = jax.lax.scan(one(), carry, inputs)
                states.append(kept)
            else:
                for index, block in enumerate(_layers(blocks), start=first):
                    final = index == config.num_hidden_layers - 1
                    carry, kept = one(last if final else None)(carry, (block, index))
                    states.append(kept[None] if keep else None)
            first += _depth(blocks)
        x, cache = carry
        states = jnp.concatenate(states) if keep else None
        return rms_norm(x[:, -last:], self.norm[...], config.rms_norm_eps), cache, states


def outputs(x: Float[Array, "*B D"], head: nnx.Param) -> Float[Array, "*B O"]:
    """A head alone, in float32: O = V logits, or one score."""
    with jax.named_scope("head"):
        return project(x, head).astype(jnp.float32)


def positions(mask_BxT: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """0, 1, 2, ... over the real tokens of each row; pads get any value within range."""
    return jnp.maximum(jnp.cumsum(mask_BxT, axis=1, dtype=jnp.int32) - 1, 0)


def causal(mask_BxT: Bool[Array, "B T"], columns: int | None = None) -> Bool[Array, "B T S"]:
    """What each token of a row may see of S columns: the real tokens up to its own place.

    `columns`: S, when it is more than T; what comes after the tokens is not seen.
    """
    T = mask_BxT.shape[1]
    mask_BxTxT = jnp.tril(jnp.ones((T, T), bool))[None] & mask_BxT[:, None]
    return jnp.pad(mask_BxTxT, ((0, 0), (0, 0), (0, (columns or T) - T)))


def with_head(model: GLM, head: Head, rngs: nnx.Rngs) -> GLM:
    """The model's trunk (shared, not copied) under a fresh head."""
    config = model.config
    other = nnx.eval_shape(lambda: GLM(config, nnx.Rngs(0), head))
    other.embedding, other.dense_blocks = model.embedding, model.dense_blocks
    other.blocks, other.norm = model.blocks, model.norm
    other.head = _head(config, rngs, head)
    return other


@jax.jit
def _call(model: GLM, tokens_BxT: Int[Array, "B T"], mask_BxT: Bool[Array, "B T"]) -> jax.Array:
    x = model.hidden(tokens_BxT, mask_BxT)
    if model.head_kind == "reward":
        last_B = mask_BxT.shape[1] - 1 - jnp.argmax(mask_BxT[:, ::-1], axis=1)
        x = jnp.take_along_axis(x, last_B[:, None, None], axis=1)[:, 0]
    y = model.outputs(x)
    return y if model.head_kind == "lm" else y[..., 0]


@jax.jit
def _hidden_states(
    model: GLM, tokens_BxT: Int[Array, "B T"], mask_BxT: Bool[Array, "B T"]
) -> jax.Array:
    _, later_LxBxTxD = model._whole(tokens_BxT, mask_BxT, keep=True)
    return jnp.concatenate([model.embedding[...][tokens_BxT][None], later_LxBxTxD])


def _checked(input_ids: Tokens, attention_mask: Mask | None):
    input_ids = input_ids if hasattr(input_ids, "dtype") else np.asarray(input_ids)
    shape = input_ids.shape
    found = shape if attention_mask is None else jnp.shape(attention_mask)
    if len(shape) != 2 or not shape[1] or not jnp.issubdtype(input_ids.dtype, jnp.integer):
        raise InputError(f"input_ids must be integers [B, T], got {input_ids.dtype} {shape}")
    if found != shape:
        raise InputError(f"attention_mask must have the shape {shape} of input_ids, got {found}")
    tokens_BxT = jnp.asarray(input_ids, jnp.int32)
    if attention_mask is None:
        return tokens_BxT, jnp.ones(tokens_BxT.shape, bool)
    return tokens_BxT, jnp.asarray(attention_mask).astype(bool)


def _head(config: GLMConfig, rngs: nnx.Rngs, head: Head) -> nnx.Param:
    D, V = config.hidden_size, config.vocab_size
    if head == "lm":
        disk = Disk(1, Place("lm_head.weight"), Place("transformer.output_layer.weight"))
        return weight(rngs, (D, V), ("embed", "vocab"), fan_in(D), disk)
    # std 1/sqrt(D + 1), as in Stiennon et al., 2020: scores of a fresh head have unit size
    disk = Disk(1, Place("score.weight"), Place("classifier_head.weight"))
    return weight(rngs, (D, 1), ("embed", "score"), fan_in(D + 1), disk)


def _depth(blocks: nnx.Module) -> int:
    return len(blocks) if isinstance(blocks, nnx.List) else blocks.attention_norm.shape[0]


def _layers(blocks: nnx.Module) -> list[Block]:
    """The blocks of a stack, one by one. The gradient of a split is one concatenation."""
    if isinstance(blocks, nnx.List):
        return list(blocks)
    depth = _depth(blocks)
    split = jax.tree.map(lambda w: [x[0] for x in jax.lax.split(w, [1] * depth)], blocks)
    return jax.tree.transpose(jax.tree.structure(blocks), None, split)


def _stack(config: GLMConfig, rngs: nnx.Rngs, depth: int, experts: bool = False) -> Block:
    """Blocks of one kind as one, each weight with a leading axis of layers."""

    @nnx.split_rngs(splits=depth)
    @nnx.vmap
    def create(rngs: nnx.Rngs) -> Block:
        return Block(config, rngs, experts)

    return create(rngs)
