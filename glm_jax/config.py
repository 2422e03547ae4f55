"""Shape and arithmetic of a GLM."""

from pydantic import PositiveFloat, PositiveInt

from glm_jax.configuration import configuration
from glm_jax.errors import InputError


@configuration
class GLMConfig:
    """A model of the GLM family, under the field names of transformers' `GlmConfig`."""

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
    partial_rotary_factor: float = 0.5
    attention_bias: bool = True
    eos_token_id: tuple[int, ...] = (0,)
    """Tokens that end an answer; an answer keeps the one that ended it."""
    pad_token_id: int = 0
    """What stands after the end; masks come from lengths, so it may equal a stop token."""

    def __post_init__(self):
        if self.num_attention_heads % self.num_key_value_heads:
            raise InputError(
                f"num_attention_heads must be a multiple of num_key_value_heads, got "
                f"{self.num_attention_heads} and {self.num_key_value_heads}"
            )
        if self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim:
            raise InputError(
                f"head_dim * partial_rotary_factor must be even and in (0, head_dim], got "
                f"{self.head_dim} * {self.partial_rotary_factor}"
            )

    @property
    def rotary_dim(self) -> int:
        """Leading dimensions of a head that are rotated; the rest pass through."""
        return int(self.head_dim * self.partial_rotary_factor)
