"""The scores of the reference answers, kept with what they were made of.

A table that was made of anything else than the run at hand is refused, not made again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from glm_jax.data.records import Prompt
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.processes import leads
from glm_jax.sampling import Sampling
from glm_jax.sharding import gathered
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.run_folder import read_json, write_json

Fingerprint = dict[str, Any]

_WORDS = {
    "sft_model": "another SFT model",
    "reward": "another reward model or function",
    "prompts": "other prompts",
    "template": "another tokenizer or template",
    "sampling": "other sampling settings",
}


def fingerprint(
    model: GLM,
    reward: str,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    samples: int,
    max_prompt: int,
) -> Fingerprint:
    """All that the scores depend on, but for the seed: `_WORDS` names the parts.

    `reward`: the `weights_hash` of the reward model, or what else tells rewards apart.
    """
    texts = [[prompt.id, prompt.prompt, prompt.category, prompt.task] for prompt in prompts]
    settings = dataclasses.asdict(sampling) | {"samples": samples, "max_prompt": max_prompt}
    return {
        "sft_model": weights_hash(model),
        "reward": reward,
        "prompts": _hash(texts),
        "template": tokenizer.fingerprint,
        "sampling": json.loads(json.dumps(settings)),
    }


def weights_hash(model: GLM) -> str:
    """SHA-256 of a model's shape and of its weights by their names."""
    digest = hashlib.sha256(_json(dataclasses.asdict(model.config)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
        # a layer at a time: no more of what is split is ever gathered on one device
        whole = leaf.is_fully_addressable or leaf.ndim < 3
        for part in [leaf] if whole else (leaf[i] for i in range(len(leaf))):
            digest.update(np.ascontiguousarray(gathered(part)).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def read(file: Path, made_of: Fingerprint) -> np.ndarray | None:
    """The scores in the table's file, [N] float32; None when there is no such file.

    Raises InputError when the table was made of anything else, naming it.
    """
    if not file.exists():
        return None
    try:
        table = read_json(file)
        found, scores = dict(table["made_of"]), np.asarray(table["scores"], np.float32)
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file}: not a table of reference scores") from None
    other = [words for name, words in _WORDS.items() if found.get(name) != made_of[name]]
    if other:
        raise InputError(
            f"{file}: this table of reference scores was made with {', '.join(other)}; delete it, "
            f"or name another one as `reference.table`"
        )
    return scores


def write(file: Path, scores_N: np.ndarray, made_of: Fingerprint) -> None:
    """Writes the table, the whole of it or nothing; the mean is for people to read."""
    if leads():
        file.parent.mkdir(parents=True, exist_ok=True)
    mean = float(np.mean(scores_N))
    write_json(file, {"mean": mean, "made_of": made_of, "scores": scores_N.tolist()})


def _hash(value: Any) -> str:
    return hashlib.sha256(_json(value)).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
