"""The GLM: an embedding, stacked and scanned blocks, a norm and a head.

Dimensions in names: see `glm_jax.layers`. A model is a pytree of its weights: it goes through
`jax.jit`, `jax.grad` and optax as it is.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from glm_jax.attention import Attention
from glm_jax.config import GLMConfig
from glm_jax.heads import Head, head_weight, outputs
from glm_jax.inputs import Mask, Tokens, checked
from glm_jax.layers import Cache, rms_norm, turned
from glm_jax.sharding import GENERATION, constrained, laid_out
from glm_jax.sight import Packed, Sight, sight, sight_of_packed, sight_of_texts
from glm_jax.stack import Remat, stack, through, unstacked
from glm_jax.weights import Disk, Place, normal, ones, weight

CACHE_AXES = None, "rows", "kv_heads", None, None


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
        self.attention: Attention = "plain"
        # what takes the place of the layers while they learn (`glm_jax.train.layerwise`)
        self.stacks: dict[str, Callable[..., Any]] | None = None
        self.embedding = weight(rngs, (V, D), ("vocab", "embed"), normal(1.0), embedding)
        # layers of one kind are one stack; those without experts come first
        self.dense_blocks = stack(config, rngs, dense) if dense else None
        self.blocks = stack(config, rngs, experts or config.num_hidden_layers, bool(experts))
        self.norm = weight(rngs, (D,), ("embed",), ones, norm)
        self.head = head_weight(config, rngs, head)

    def __call__(
        self, input_ids: Tokens, attention_mask: Mask | None = None
    ) -> Float[Array, "B T V"] | Float[Array, "B T"] | Float[Array, "B"]:
        """Logits `[B, T, V]`, values `[B, T]` or scores `[B]`, as the head is, in float32.

        Args:
          input_ids: `[B, T]` tokens.
          attention_mask: `[B, T]`, False or 0 at pads, which may lie anywhere; None: all real.
        """
        call = _call if self.stacks is None else _call.__wrapped__
        return call(self, *checked(input_ids, attention_mask))

    def hidden(
        self,
        tokens_BxT: Int[Array, "B T"],
        mask_BxT: Bool[Array, "B T"] | Packed,
        last: int | None = None,
    ) -> Float[Array, "B R D"]:
        """Final hidden states, normed. Pads (mask False) may lie anywhere and are never seen;
        where a row holds several texts, `Packed` stands in the mask's place.

        `last`: only those of so many tokens at the end.
        """
        return self.hidden_of([(tokens_BxT, mask_BxT, last)])[0]

    def hidden_of(
        self, texts: Sequence[tuple[Int[Array, "_ _"], Bool[Array, "_ _"] | Packed, int | None]]
    ) -> list[Float[Array, "_ _ _"]]:
        """`hidden` of several texts: (tokens, mask, last) of each."""
        if self.stacks is None:
            return [self._whole(tokens, mask, last=last)[0] for tokens, mask, last in texts]
        sights = tuple(self._sight(mask) for _, mask, _ in texts)
        streams = tuple(self._embedded(tokens) for tokens, _, _ in texts)
        for learning in self.stacks.values():
            streams = learning(streams, sights)
        return [self._normed(x, last) for x, (_, _, last) in zip(streams, texts, strict=True)]

    def scores(self, tokens_BxT: Int[Array, "B T"], packed: Packed) -> Float[Array, "B T"]:
        """The score of each text in a row as far as each of its tokens: a text's own is that at its
        last one. The head must be `reward`."""
        return self._score(self.outputs(self.hidden(tokens_BxT, packed)))

    def hidden_states(
        self, input_ids: Tokens, attention_mask: Mask | None = None
    ) -> Float[Array, "L1 B T D"]:
        """The residual stream after the embedding and after each layer, before the last norm."""
        return _hidden_states(self, *checked(input_ids, attention_mask))

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
        seen = sight(positions_BxT, mask_BxTxS, self.config)
        x, cache, _ = self._run(tokens_BxT, seen, cache)
        return x, cache._replace(column=cache.column + tokens_BxT.shape[1])

    def rematerialised(self, remat: Remat) -> "GLM":
        """The model with this policy for its backward pass (Chen et al., 2016)."""
        other = jax.tree.map(lambda w: w, self)
        other.remat = remat
        return other

    def attending(self, attention: Attention) -> "GLM":
        """The model with this attention wherever it reads whole texts: decoding keeps its own."""
        other = jax.tree.map(lambda w: w, self)
        other.attention = attention
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
            if blocks is not None:
                setattr(other, name, unstacked(blocks))
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
        x, _, states = self._run(tokens_BxT, self._sight(mask_BxT), None, keep=keep, last=last)
        return x, states

    def _run(self, tokens_BxT, seen: Sight, cache, *, keep=False, last=None):
        stacks = [blocks for blocks in (self.dense_blocks, self.blocks) if blocks is not None]
        x, cache, states = through(
            stacks, self._embedded(tokens_BxT), seen, cache, remat=self.remat, keep=keep, last=last
        )
        return self._normed(x, last), cache, states

    def _sight(self, mask_BxT) -> Sight:
        if isinstance(mask_BxT, Packed):
            return sight_of_packed(mask_BxT, self.config, self.attention)
        return sight_of_texts(mask_BxT, self.config, self.attention)

    def _score(self, y):
        return y[..., 0] - self.config.score_shift

    def _embedded(self, tokens_BxT):
        return constrained(self.embedding[...][tokens_BxT], "rows", None, None)

    def _normed(self, x, last):
        return rms_norm(x[:, -(last or x.shape[1]) :], self.norm[...], self.config.rms_norm_eps)


def with_head(model: GLM, head: Head, rngs: nnx.Rngs) -> GLM:
    """The model's trunk (shared, not copied) under a fresh head."""
    config = dataclasses.replace(model.config, score_shift=0.0)  # it was the old head's
    other = nnx.eval_shape(lambda: GLM(config, nnx.Rngs(0), head))
    other.embedding, other.dense_blocks = model.embedding, model.dense_blocks
    other.blocks, other.norm = model.blocks, model.norm
    other.head = head_weight(config, rngs, head)
    return other


@jax.jit
def _call(model: GLM, tokens_BxT: Int[Array, "B T"], mask_BxT: Bool[Array, "B T"]) -> jax.Array:
    x = model.hidden(tokens_BxT, mask_BxT)
    if model.head_kind == "reward":
        last_B = mask_BxT.shape[1] - 1 - jnp.argmax(mask_BxT[:, ::-1], axis=1)
        x = jnp.take_along_axis(x, last_B[:, None, None], axis=1)[:, 0]
    y = model.outputs(x)
    if model.head_kind == "reward":
        return model._score(y)
    return y if model.head_kind == "lm" else y[..., 0]


@jax.jit
def _hidden_states(
    model: GLM, tokens_BxT: Int[Array, "B T"], mask_BxT: Bool[Array, "B T"]
) -> jax.Array:
    _, later_LxBxTxD = model._whole(tokens_BxT, mask_BxT, keep=True)
    return jnp.concatenate([model.embedding[...][tokens_BxT][None], later_LxBxTxD])
