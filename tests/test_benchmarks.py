"""The benchmarks run, at sizes that say nothing, and count what they say they count."""

import json
import os
import sys
from itertools import islice
from pathlib import Path

import jaxtyping
import numpy as np
import psutil
import pytest

from glm_jax.config import GLMConfig
from glm_jax.data.filters import filter_pairs
from glm_jax.data.sources import open_pairs

ROOT = Path(__file__).parent.parent
TINY = {
    "layers": 1, "d": 32, "heads": 4, "kv": 2, "ffn": 48, "vocab": 64, "batch": 4, "prompt": 3,
    "response": 6, "minibatches": 2, "epochs": 1, "iterations": 1, "product-size": 16,
}  # fmt: skip


@pytest.fixture
def benchmarks(monkeypatch):
    # a program is lowered with descriptions of its arguments in the state's place
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    from benchmarks import ppo, roofline

    return ppo, roofline


@pytest.mark.parametrize("eos_rate", ["0", "0.25"])
def test_ppo(benchmarks, monkeypatch, capsys, eos_rate):
    """Whole answers; and answers that end early, in proportion to which the work is done."""
    flags = [part for name, size in TINY.items() for part in (f"--{name}", str(size))]
    if eos_rate != "0":
        flags += ["--rollout-rows", "2", "--widths", "2", "--sort-by-length"]
    monkeypatch.setattr(sys, "argv", ["ppo", *flags, "--eos-rate", eos_rate, "--json"])
    benchmarks[0].main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    phases = found["seconds_by_phase"]
    assert list(phases) == ["generation", "scoring", "update"]
    assert sum(phases.values()) == pytest.approx(found["seconds_per_iteration"])
    for name in ("response_tokens_per_second", "floor_fraction", "compile_seconds", "peak_bytes"):
        assert found[name] > 0
    assert (found["mean_response"] == 6) == (eos_rate == "0")


def test_data(monkeypatch, tmp_path):
    """Its pairs are read; a part of them is turned around; the memory is a process's and more."""
    from benchmarks import data

    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(islice(data.rows(), 400)))
    pairs = list(open_pairs(file))
    kept, dropped = filter_pairs(pairs)
    assert 500 < file.stat().st_size / 400 < 1500 and len({pair.id for pair in pairs}) == 400
    assert {reason for _, reason in dropped} == {"added_up", "tie", "cycle"}
    assert len(kept) > 200
    held = data.memory(os.getpid())
    assert 0.9 < held / (psutil.Process().memory_info().rss) < 2


def test_reward_training(benchmarks, monkeypatch, capsys, tmp_path):
    """And the tokens that another trainer is given are those of the batches that were measured."""
    from benchmarks import train

    lines = [
        {
            "prompt": [{"role": "user", "content": "ask " * (i % 5 + 1)}],
            "chosen": "good " * (i % 7 + 1), "rejected": "bad " * (i % 3 + 1),
        }
        for i in range(20)
    ]  # fmt: skip
    file, tokens = tmp_path / "pairs.jsonl", tmp_path / "tokens.npz"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sizes = {name: TINY[name] for name in ("layers", "d", "heads", "kv", "ffn", "batch")}
    sizes |= {"vocab": 300, "max-length": 48, "steps": 3, "widths": 1}
    flags = [part for name, size in sizes.items() for part in (f"--{name}", str(size))]
    monkeypatch.setattr(
        sys, "argv", ["train", "reward", str(file), *flags, "--tokens", str(tokens), "--json"]
    )
    train.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in ("pairs_per_second", "real_tokens_per_second", "compile_seconds"):
        assert found[name] > 0
    assert 0 <= found["padding"] < 1 and np.isfinite(found["loss"])
    with np.load(tokens) as stored:
        assert len(stored["chosen_lengths"]) == 3 * TINY["batch"] == 3 * stored["batch"]
        both = [stored[f"{side}_lengths"].sum() for side in ("chosen", "rejected")]
        assert [len(stored[side]) for side in ("chosen", "rejected")] == both
        assert sum(both) == pytest.approx(found["tokens_per_pair"] * 3 * TINY["batch"])


def test_operations_of_an_iteration(benchmarks):
    """Against a count of every product, token by token."""
    config = GLMConfig(
        vocab_size=11, hidden_size=8, intermediate_size=5, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=2,
    )  # fmt: skip
    prompt, lengths = 3, np.array([1, 4])
    weights = 8 * (4 + 2 + 2) * 2 + 4 * 2 * 8 + 3 * 8 * 5

    def forward(tokens):
        return sum(3 * (2 * weights + 2 * 2 * 4 * 2 * (at + 1)) for at in range(tokens))

    whole = sum(forward(prompt + n) for n in lengths)
    generation = sum(forward(prompt + n - 1) for n in lengths)
    head, value = 5 * 2 * 8 * 11, 5 * 2 * 8
    expected = generation + head + 3 * whole + head + value + 2 * 2 * 8
    expected += 2 * 3 * (2 * whole + head + value)
    assert benchmarks[1].iteration_flops(config, prompt, lengths, epochs=2) == expected
