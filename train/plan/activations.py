"""What a text takes of a chip's memory on its way through a model, by hand.

How many copies of what are alive at once is read off the buffers of programs that the TPU compiler
made of the shipped runs; all sizes are bytes on a chip.
"""

from typing import NamedTuple

from glm_jax.attention import Attention
from glm_jax.config import GLMConfig
from glm_jax.mesh import MeshConfig
from glm_jax.model import Remat

# Copies that a layer leaves behind of the stream, heads, ffn and scores: its input; the results of
# its products, too; everything, with norms and softmax in float32.
KEPT: dict[Remat, tuple[int, int, int, int]] = {
    "full": (1, 0, 0, 0), "products": (2, 1, 2, 0), "none": (12, 3, 6, 3)
}  # fmt: skip


class Text(NamedTuple):
    """Rows of a text in a model, as they are split over a mesh."""

    model: GLMConfig
    mesh: MeshConfig
    rows: int  # on all chips together
    tokens: int  # of a row
    itemsize: int  # of the dtype that is computed in
    columns: int | None = None  # tokens that each attends to; None: those of the row
    attention: Attention = "plain"

    def of(self, width: float) -> float:
        """`width` numbers of each token."""
        return self.rows / self.mesh.rows * self.tokens * width * self.itemsize

    @property
    def stream(self) -> float:
        """The residual stream, and whatever else is as large."""
        return self.of(self.model.hidden_size)

    @property
    def heads(self) -> float:
        """Queries, keys and values."""
        N, G = self.model.num_attention_heads, key_heads(self.model, self.mesh)
        return self.of((N / self.mesh.tensor + 2 * G) * self.model.head_dim)

    @property
    def scores(self) -> float:
        """Attention of each head to each token, once; kernels keep them out of memory."""
        if self.attention != "plain":
            return 0.0
        return self.of(
            self.model.num_attention_heads / self.mesh.tensor * (self.columns or self.tokens)
        )

    @property
    def ffn(self) -> float:
        """What lies between the products of an MLP, once; with experts, of all that a token goes
        through, and the stream once for each."""
        model, tensor = self.model, self.mesh.tensor
        if not model.n_routed_experts:
            return self.of(model.intermediate_size / tensor)
        K, F = model.num_experts_per_tok, model.moe_intermediate_size
        return self.of((K + model.n_shared_experts) * F / tensor + K * model.hidden_size)

    @property
    def forward(self) -> float:
        """The most that a layer holds without a backward pass."""
        return 3 * self.stream + max(1.5 * self.scores, 3 * self.ffn)

    @property
    def backward(self) -> float:
        """The most that a layer holds while its gradient is taken: all of it is computed again,
        and beside it lie gradients. Half a copy of the scores is their mask."""
        streams = 10 if self.model.sandwich_norms else 6
        return streams * self.stream + 2.5 * self.scores + 3 * self.ffn

    def kept(self, remat: Remat) -> float:
        """What all layers leave behind for the backward pass."""
        parts = self.stream, self.heads, self.ffn, self.scores
        layer = sum(n * size for n, size in zip(KEPT[remat], parts, strict=True))
        return self.model.num_hidden_layers * layer

    def logits(self, columns: int) -> float:
        """Of so many tokens of each row, in the compute dtype."""
        return self._replace(tokens=columns).of(self.model.vocab_size / self.mesh.tensor)

    def head(self, columns: int) -> float:
        """What a loss of so many tokens of each row holds: logits in float32, and once more."""
        return self.logits(columns) * (1 + 4 / self.itemsize)


def key_heads(model: GLMConfig, mesh: MeshConfig) -> int:
    """Key/value heads on a chip: at least one, which several chips then hold alike."""
    return max(model.num_key_value_heads // mesh.tensor, 1)


def cache(text: Text) -> float:
    """Keys and values of all layers for so many rows and tokens."""
    G, H = key_heads(text.model, text.mesh), text.model.head_dim
    return text.of(2 * G * H * text.model.num_hidden_layers)
