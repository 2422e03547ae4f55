"""A language model and the tokenizer that it speaks with."""

import dataclasses

from jax.sharding import Mesh

from glm_jax.checkpoint.pretrained import load_pretrained
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer


def load_policy(
    path: str,
    *,
    tokenizer: str = "",
    dtype: str | None = "float32",
    mesh: Mesh | None = None,
) -> tuple[GLM, Tokenizer]:
    """The model of a folder and its tokenizer, or that of the folder `tokenizer`; the model ends a
    turn as the tokenizer's dialogue format does.

    ChatGLM3's config.json names one stop token, and its answers end with three: those of the
    tokenizer are added. Raises InputError also when the tokenizer has more tokens than the model.
    """
    found = Tokenizer.load(tokenizer or path)
    model = load_pretrained(path, "lm", dtype=dtype, mesh=mesh)
    if found.vocab_size > model.config.vocab_size:
        raise InputError(
            f"{path}: the tokenizer has {found.vocab_size} tokens, but the model only "
            f"{model.config.vocab_size}"
        )
    known = model.config.eos_token_id
    further = [token for token in found.stop_ids if token not in known]
    model.config = dataclasses.replace(model.config, eos_token_id=(*known, *further))
    return model, found
