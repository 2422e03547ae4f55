"""A PPO run of random models in a second or two: what its tests start from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from flax import nnx

from glm_jax.checkpoint.pretrained import save_pretrained
from glm_jax.config import GLMConfig
from glm_jax.configuration import parse
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.ppo import PPOConfig

WORDS = ["a", "fox", "sings", "of", "rain", "and", "stones", "in", "the", "old", "town"]


def write_models(folder: Path) -> Path:
    """sft, reward and heldout, prompts.jsonl and watched.jsonl (of two categories)."""
    tokenizer = Tokenizer.word_level(WORDS)
    shape = {
        "vocab_size": tokenizer.vocab_size, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "eos_token_id": (tokenizer.eos_id,), "pad_token_id": tokenizer.pad_id,
    }  # fmt: skip
    heads = {"sft": "lm", "reward": "reward", "heldout": "reward"}
    for seed, (name, head) in enumerate(heads.items()):
        model = GLM(GLMConfig(**shape), nnx.Rngs(seed), head)
        model.head.set_value(model.head[...] * (2.0 if head == "lm" else 4.0))
        save_pretrained(model, folder / name, tokenizer)
    for name, count in {"prompts": 8, "watched": 6}.items():
        rows = [
            {"id": f"{name}/{i}", "category": "ab"[i % 2],
             "prompt": [{"role": "user", "content": f"{WORDS[i]} {WORDS[-1 - i]}"}]}
            for i in range(count)
        ]  # fmt: skip
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def example(folder: Path, run: Path, **changes: Any) -> PPOConfig:
    """Six iterations of four prompts; `changes` are values of keys by path: eval__every=3."""
    values: dict[str, Any] = {
        "run": str(run), "model": f"{folder}/sft", "reward_model": f"{folder}/reward",
        "prompts": f"{folder}/prompts.jsonl", "max_prompt": 8, "max_length": 16,
        "checkpoint_every": 4,
        "ppo": {
            "iterations": 6, "batch_size": 4, "epochs": 1, "minibatches": 1,
            "supervised_coefficient": 0.0, "sampling": {"max_new_tokens": 6},
            "actor": {"learning_rate": 0.003}, "critic": {"learning_rate": 0.01},
        },
        "eval": {
            "prompts": f"{folder}/watched.jsonl", "reward_model": f"{folder}/heldout", "every": 2,
            "batch_size": 4,
        },
        "guards": {"max_kl": 0.05, "on_max_kl": "adapt"},
        "alarms": {"window": 2, "warmup": 0, "kl": 0.02, "scores_apart": 0.01,
                   "length_correlation": 0.01},
    }  # fmt: skip
    for path, value in changes.items():
        *keys, last = path.split("__")
        block = values
        for key in keys:
            block = block.setdefault(key, {})
        block[last] = value
    return parse(PPOConfig, values, "the test")


def weights(folder: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(folder / "model.safetensors")


def close(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], atol: float = 1e-5
) -> None:
    """Weights of two runs that add up in another order."""
    assert found.keys() == expected.keys()
    for name, w in expected.items():
        # what a bias of keys adds where nothing is rotated, softmax does not see: its gradient is
        # rounding, which Adam takes for a direction
        seen = slice(4) if name.endswith("k_proj.bias") else slice(None)
        np.testing.assert_allclose(found[name][seen], w[seen], atol=atol, rtol=0, err_msg=name)


def logged(file: Path) -> list[dict[str, Any]]:
    """The lines of a log without the times, which are never the same twice."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
