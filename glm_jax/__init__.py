"""GLM models in JAX.

The names below are imported when first used, so that `import glm_jax` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glm_jax.checkpoint.pretrained import load_pretrained as load_pretrained
    from glm_jax.checkpoint.pretrained import save_pretrained as save_pretrained
    from glm_jax.config import GLMConfig as GLMConfig
    from glm_jax.errors import InputError as InputError
    from glm_jax.generation import generate as generate
    from glm_jax.model import GLM as GLM
    from glm_jax.model import with_head as with_head
    from glm_jax.presets import preset as preset
    from glm_jax.sampling import Sampling as Sampling
    from glm_jax.text.tokenizer import Tokenizer as Tokenizer

_HOMES = {
    "GLM": "model",
    "GLMConfig": "config",
    "InputError": "errors",
    "Sampling": "sampling",
    "Tokenizer": "text.tokenizer",
    "generate": "generation",
    "load_pretrained": "checkpoint.pretrained",
    "preset": "presets",
    "save_pretrained": "checkpoint.pretrained",
    "with_head": "model",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"glm_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
