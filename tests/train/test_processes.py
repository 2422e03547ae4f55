"""Two processes with four devices are one with eight: every trainer, killed, ended, refused."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from ppo_example import WORDS, close, example, logged, weights

from glm_jax import configuration, processes
from glm_jax.checkpoint.pretrained import save_pretrained
from glm_jax.config import GLMConfig
from glm_jax.configuration import parse
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import dpo, ppo, reward, sft
from glm_jax.train.cli import main
from glm_jax.train.run_folder import Checkpoints

SHAPE = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip
pytestmark = pytest.mark.slow
TRAINERS = {"sft": sft, "reward": reward, "dpo": dpo, "ppo": ppo}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models, and files of twenty-four dialogues, pairs and prompts."""
    folder = tmp_path_factory.mktemp("processes")
    tokenizer = Tokenizer.word_level([*WORDS, "river"])  # an even vocabulary
    stop = {"eos_token_id": (tokenizer.eos_id,), "pad_token_id": tokenizer.pad_id}
    for seed, (name, head) in enumerate({"sft": "lm", "reward": "reward"}.items()):
        config = GLMConfig(**SHAPE, **stop, vocab_size=tokenizer.vocab_size)
        save_pretrained(GLM(config, nnx.Rngs(seed), head), folder / name, tokenizer)
    lines: dict[str, list] = {"dialogues": [], "pairs": [], "prompts": []}
    for i in range(24):
        text, other = " ".join(WORDS[i % 5 : i % 5 + 3]), " ".join(WORDS[i % 4 : i % 4 + 2])
        asked = {"id": str(i), "prompt": [{"role": "user", "content": WORDS[i % 11]}]}
        lines["dialogues"].append({**asked, "response": text})
        sides = (text, other) if i % 3 else (other, text)  # the longer is better, and not always
        lines["pairs"].append({**asked, **dict(zip(("chosen", "rejected"), sides, strict=True))})
        lines["prompts"].append(asked)
    for name, rows in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def configs(folder: Path, runs: Path, slices: int = 1) -> dict[str, Any]:
    """A run of each trainer on a mesh that spans both processes, `slices` of the first."""
    given = {
        "max_length": 16, "batch_size": 8, "checkpoint_every": 2,
        "optimizer": {"learning_rate": 1e-3},
    }  # fmt: skip
    mesh = {"data": 2, "fsdp": 2, "tensor": 2, "slices": slices}
    tuned = given | {"data": [f"{folder}/dialogues.jsonl"], "steps": 4, "widths": 1}
    new = {"tokenizer": f"{folder}/sft", "architecture": SHAPE}
    pairs = given | {"model": f"{folder}/sft", "pairs": f"{folder}/pairs.jsonl"}
    held_out = {
        "heldout": 0.4, "evaluate_every": 1, "patience": 3, "reference": f"{folder}/dialogues.jsonl"
    }  # fmt: skip
    values = {
        "sft": (sft.SFTConfig, tuned | new | {"mesh": mesh}),
        "reward": (reward.RewardConfig, pairs | held_out | {"widths": 1, "mesh": {"fsdp": 8}}),
        "dpo": (dpo.DPOConfig, pairs | {"steps": 3, "mesh": {"fsdp": 4, "tensor": 2}}),
    }
    found = {
        name: parse(kind, row | {"run": f"{runs}/{name}"}, name)
        for name, (kind, row) in values.items()
    }
    changes = {
        "mesh": {"fsdp": 4, "tensor": 2}, "ppo__iterations": 2, "ppo__batch_size": 8,
        "ppo__sampling": {"max_new_tokens": 4}, "checkpoint_every": 1,
        "eval": {"prompts": f"{folder}/prompts.jsonl", "batch_size": 24, "every": 1},
    }  # fmt: skip
    return found | {"ppo": example(folder, runs / "ppo", **changes)}


class Pair:
    """Two processes that run the same commands."""

    def __init__(self, folder: Path, commands: dict[str, Any], **environment: str):
        self._folder = folder
        folder.mkdir(exist_ok=True)
        files = []
        for name, config in commands.items():
            configuration.save(config, folder / f"{name}.yaml")
            files.append(f"{name.split('-')[0]}={folder}/{name}.yaml")
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        cache = Path(jax.config.jax_compilation_cache_dir)
        common = {
            "JAX_PLATFORMS": "cpu", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "JAX_COMPILATION_CACHE_DIR": str(cache.with_name("jax-processes")),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2",
        }  # fmt: skip
        script = str(Path(__file__).with_name("one_process.py"))
        self._processes = []
        for i in range(2):
            with open(folder / f"said{i}", "w") as said:
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, script, str(folder), *files], stdout=said, stderr=said,
                        env=os.environ | common | {"JAX_PROCESS_ID": str(i)} | environment,
                    )
                )  # fmt: skip

    def ended(self) -> list[int]:
        """Their exit statuses."""
        try:
            return [process.wait(400) for process in self._processes]
        finally:
            for process in self._processes:
                process.kill()

    def listed(self, name: str, i: int) -> list:
        return json.loads((self._folder / f"{name}{i}.json").read_text())

    def said(self, i: int) -> str:
        return (self._folder / f"said{i}").read_text()


@pytest.fixture(scope="module")
def both(folder) -> Pair:
    """One pair of processes for all trainers; a refused run first, one that is ended last."""
    found = configs(folder, folder / "two", slices=2)
    refused = configs(folder, folder / "refused", slices=4)["sft"]
    ended = configs(folder, folder / "ended", slices=2)["sft"]
    ended = parse(sft.SFTConfig, configuration.to_dict(ended) | {"steps": 5000}, "ended")
    commands = {"sft-refused": refused, **found, "sft-ended": ended}
    pair = Pair(folder / "both", commands, SIGNAL="TERM", PROCESS="1", STEP="5")
    for name, config in configs(folder, folder / "one").items():  # meanwhile
        TRAINERS[name].run(config)
    assert pair.ended() == [1, 1], pair.said(0) + pair.said(1)
    return pair


@pytest.mark.parametrize("trainer", TRAINERS)
def test_two_processes_are_one(both, folder, trainer):
    one, two = (folder / name / trainer for name in ("one", "two"))
    close(weights(two / "model"), weights(one / "model"))
    for log in one.glob("*.jsonl"):
        for found, expected in zip(logged(two / log.name), logged(log), strict=True):
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                near = pytest.approx(value, abs=1e-5, rel=1e-4) if type(value) is float else value
                assert found[key] == near, f"{log.name}: {key}"
    files = {file.relative_to(one) for file in one.rglob("*") if "checkpoints" not in file.parts}
    logs = [file for file in files if file.name.startswith("events.")]
    assert len(list((two / "tensorboard").glob("*"))) == len(logs) <= 1
    assert all((two / file).exists() for file in files - set(logs))


def test_all_processes_say_what_is_wrong_with_a_configuration(both, folder):
    for i in range(2):
        assert both.listed("statuses", i) == [2, 0, 0, 0, 0, 1]
        assert "glm-rlhf: error: mesh: slices (4) must divide data (2)" in both.said(i)
    assert not (folder / "refused").exists()


def test_the_first_process_writes_and_tells(both):
    assert any(file.endswith("metrics.jsonl") for file in both.listed("wrote", 0))
    assert both.listed("wrote", 1) == []
    assert "supervised fine-tuning: 4" in both.said(0) and "evaluation after 2" in both.said(0)
    assert "supervised" not in both.said(1).replace("supervised fine-tuning: asked to end", "")
    assert "evaluation" not in both.said(1)


def test_a_process_that_is_asked_to_end_ends_all_at_one_step(both, folder):
    steps = len(logged(folder / "ended/sft/metrics.jsonl"))
    assert 5 <= steps < 5000
    assert Checkpoints(folder / "ended/sft").latest() == steps
    for i in range(2):
        assert f"asked to end; step {steps} is saved" in both.said(i)


def test_a_run_of_which_a_process_was_killed_goes_on_bit_for_bit(both, folder):
    """Killed after the second iteration, before its checkpoint."""
    config = {"ppo": configs(folder, folder / "killed")["ppo"]}
    killed = Pair(folder / "pair", config, SIGNAL="KILL", PROCESS="1", STEP="2").ended()
    assert killed[1] == -9 and killed[0] not in (0, None)
    run, whole = folder / "killed/ppo", folder / "two/ppo"
    assert Checkpoints(run).latest() == 1 and not (run / "model").exists()
    again = Pair(folder / "pair", config)
    assert again.ended() == [0, 0], again.said(0) + again.said(1)
    for log in whole.glob("*.jsonl"):
        assert logged(run / log.name) == logged(log), log.name
    for name in ("model", "best"):
        for key, w in weights(whole / name).items():
            np.testing.assert_array_equal(weights(run / name)[key], w)


def test_a_process_that_does_not_know_its_number_says_so(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1234")
    monkeypatch.setenv("JAX_PROCESS_ID", "first")
    with pytest.raises(InputError, match="JAX_PROCESS_ID must be a number, got 'first'"):
        processes.join()


def test_what_runs_in_one_process_is_refused_in_several(monkeypatch, capsys):
    monkeypatch.setattr(processes, "several", lambda: True)
    assert main(["quickstart"]) == 2
    assert "pipeline runs in one process" in capsys.readouterr().err
