"""Shape and arithmetic of a GLM."""

from typing import Annotated, Literal

from pydantic import Field

from glm_jax.configuration import configuration
from glm_jax.errors import InputError

# bounds that no model meets, and that arithmetic on sizes stands
PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31)]
PositiveFloat = Annotated[float, Field(gt=0, lt=1e30)]


@configuration
class GLMConfig:
    """A model of the GLM family, under the field names of transformers' configurations."""

    model_type: Literal["glm", "glm4", "glm4_moe"] = "glm"
    """`glm`: ChatGLM2, ChatGLM3 and GLM-4-9B; `glm4`, of 0414, norms the outputs of attention and
    MLP, too; `glm4_moe`, of GLM-4.5, has experts and rotates the halves of its heads."""
    vocab_size: PositiveInt = 65_024
    hidden_size: PositiveInt = 128
    intermediate_size: PositiveInt = 336
    num_hidden_layers: PositiveInt = 4
    num_attention_heads: PositiveInt = 4
    num_key_value_heads: PositiveInt = 2
    head_dim: PositiveInt = 32
    max_position_embeddings: PositiveInt = 2048
    rms_norm_eps: PositiveFloat = 1e-5
    rope_theta: PositiveFloat = 10_000.0
    partial_rotary_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    attention_bias: bool = True
    "of query, key and value; no other matrix has one"
    use_qk_norm: bool = False
    "glm4_moe: queries and keys of each head are normed before they are rotated"
    n_routed_experts: NonNegativeInt = 0
    "glm4_moe: experts of a layer; this and what follows mean nothing to the others"
    num_experts_per_tok: NonNegativeInt = 0
    n_shared_experts: NonNegativeInt = 0
    "experts that every token goes through"
    moe_intermediate_size: NonNegativeInt = 0
    first_k_dense_replace: NonNegativeInt = 0
    "the first layers, which have no experts"
    n_group: PositiveInt = 1
    "experts are chosen among those of the best `topk_group` of `n_group` groups"
    topk_group: PositiveInt = 1
    norm_topk_prob: bool = True
    "weights of the chosen experts sum to one before they are scaled"
    routed_scaling_factor: float = 1.0
    score_shift: float = 0.0
    """Taken off every score of a reward model: the mean score of the reference answers, where there
    were any. In transformers, whose head has no bias, whoever reads a score takes it off."""
    eos_token_id: tuple[NonNegativeInt, ...] = (0,)
    """Tokens that end an answer; an answer keeps the one that ended it."""
    pad_token_id: NonNegativeInt = 0
    """What stands after the end; masks come from lengths, so it may equal a stop token."""

    def __post_init__(self):
        if self.num_attention_heads % self.num_key_value_heads:
            raise InputError(
                f"num_attention_heads must be a multiple of num_key_value_heads, got "
                f"{self.num_attention_heads} and {self.num_key_value_heads}"
            )
        if not 0 < self.rotary_dim + self.rotary_dim % 2 <= self.head_dim:
            raise InputError(
                f"head_dim * partial_rotary_factor must be in [1, head_dim], got "
                f"{self.head_dim} * {self.partial_rotary_factor}"
            )
        moe = self.model_type == "glm4_moe"
        if moe != bool(self.n_routed_experts) or (self.use_qk_norm and not moe):
            raise InputError(
                f"n_routed_experts and use_qk_norm belong to model_type glm4_moe, which needs "
                f"experts; got {self.n_routed_experts}, {self.use_qk_norm} and {self.model_type!r}"
            )
        if moe:
            self._check_experts()

    def _check_experts(self):
        for name in ("num_experts_per_tok", "n_shared_experts", "moe_intermediate_size"):
            if not getattr(self, name):
                raise InputError(f"{name} must be at least 1 for model_type glm4_moe, got 0")
        group, rest = divmod(self.n_routed_experts, self.n_group)
        if rest or group < 2 or self.topk_group > self.n_group:
            raise InputError(
                f"n_group must divide n_routed_experts into groups of 2 or more, and topk_group be "
                f"at most n_group, got {self.n_group}, {self.n_routed_experts}, {self.topk_group}"
            )
        if self.num_experts_per_tok > group * self.topk_group:
            raise InputError(
                f"num_experts_per_tok must be at most the experts of topk_group groups, "
                f"{group * self.topk_group}, got {self.num_experts_per_tok}"
            )
        if self.first_k_dense_replace >= self.num_hidden_layers:
            raise InputError(
                f"first_k_dense_replace must be below num_hidden_layers, "
                f"got {self.first_k_dense_replace} and {self.num_hidden_layers}"
            )

    @property
    def rotary_dim(self) -> int:
        """Leading dimensions of a head that are rotated; the rest pass through."""
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def sandwich_norms(self) -> bool:
        """Whether the outputs of attention and MLP are normed before they are added."""
        return self.model_type == "glm4"

    @property
    def interleaved_rotary(self) -> bool:
        """Rotated pairs are neighbours (0, 1), (2, 3), ...; if not, (0, R), (1, R + 1), ..."""
        return self.model_type != "glm4_moe"
