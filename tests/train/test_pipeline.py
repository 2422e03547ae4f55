"""The pipeline as its users meet it: real processes, killed and started again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAM = Path(sys.executable).with_name("glm-rlhf")
STAGES = ("sft", "reward/balanced", "dpo", "ppo")
PPO_LOGS = ("metrics.jsonl", "completions.jsonl", "evaluation.jsonl", "alarms.jsonl")


def start(run: Path, *overrides: str) -> subprocess.Popen:
    command = [PROGRAM, "pipeline", str(HERE / "tiny.yaml")]
    environment = os.environ | {
        "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache/jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }  # fmt: skip
    return subprocess.Popen(
        [*command, f"run={run}", *overrides], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


def weights(run: Path, stage: str) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(run / stage / "model/model.safetensors")


def untimed(file: Path) -> list[dict[str, object]]:
    """The lines without the times, which are never the same twice."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def steps(file: Path) -> list[int]:
    rows = file.read_text().split("\n")[:-1] if file.exists() else []
    return [json.loads(row)["step"] for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(start(run))
    return run


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_bit_equal(whole: Path, tmp_path: Path):
    """`kill -9` behind a checkpoint of each stage: the end is as if nothing had been."""
    run = tmp_path / "run"
    for stage, at in zip(STAGES, (9, 3, 3, 4), strict=True):
        process = start(run)
        deadline = time.monotonic() + 200
        while len(steps(run / stage / "metrics.jsonl")) < at:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (run / stage / "model").exists(), f"{stage} had ended before the kill"
    assert "PPO (from 3 of 8)" in finish(start(run))
    for stage in STAGES:
        expected, found = weights(whole, stage), weights(run, stage)
        assert expected.keys() == found.keys()
        for name in expected:
            assert np.array_equal(expected[name], found[name]), f"{stage}: {name}"
        for name in PPO_LOGS if stage == "ppo" else PPO_LOGS[:1]:
            assert untimed(run / stage / name) == untimed(whole / stage / name)
    assert (run / "ppo/best.json").read_text() == (whole / "ppo/best.json").read_text()
    numbers = [json.loads((path / "report.json").read_text()) for path in (whole, run)]
    for values in numbers:
        del values["timing"], values["config"]
        for row in values["ppo"]["train"]:
            del row["time/iteration"], row["time/response_tokens_per_second"]
    assert numbers[0] == numbers[1]


def test_ctrl_c_is_one_line_and_status_130(tmp_path: Path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits "ignore"
    try:
        process = start(tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    while not (tmp_path / "run/sft/counts.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(1)  # into the first compilation
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert errors.strip() == "glm-rlhf: interrupted; the same command goes on from here"


def test_the_run_leaves_what_the_readme_names(whole: Path):
    report = json.loads((whole / "report.json").read_text())
    assert {"wins", "reward", "claims", "filler_probe", "timing", "config"} <= report.keys()
    assert report["wins"]["ppo_vs_sft"]["greedy"]["all"]["n"] == 40
    assert {"low", "high", "net"} <= report["wins"]["dpo_vs_sft"]["sampled"]["qa"].keys()
    assert "<svg" in (whole / "report.html").read_text()
    completions = [
        json.loads(row) for row in (whole / "ppo/completions.jsonl").read_text().splitlines()
    ]
    assert len(completions) == 8 * 16
    assert all(np.isfinite(row["score"]) and row["length"] >= 1 for row in completions)
    assert report["ppo"]["best"]["by"] == "heldout_score" and (whole / "ppo/best").is_dir()
    assert (whole / "config.yaml").exists() and (whole / "ppo/config.yaml").exists()


def test_a_finished_run_is_left_as_it_is(whole: Path):
    before = {file: file.stat().st_mtime_ns for file in whole.rglob("*.safetensors")}
    finish(start(whole))
    assert before == {file: file.stat().st_mtime_ns for file in whole.rglob("*.safetensors")}


def test_a_folder_of_another_configuration_is_refused(whole: Path):
    process = start(whole, "sft.steps=41")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2
    assert errors.count("\n") == 1 and "sft.steps is 40 there and 41 here" in errors


def python(*arguments: object) -> str:
    environment = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_sweeps_the_kl_coefficient(whole: Path):
    output = python(ROOT / "examples/kl_sweep.py", whole, 2)
    assert len(re.findall(r"coefficient 0\.\d\d: score [+-]\d.\d\d at KL -?\d", output)) == 3


def test_the_python_of_the_readme_runs(whole: Path, tmp_path: Path):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = block.replace("runs/quickstart", str(whole)).replace("range(10)", "range(2)")
    assert script != block
    (tmp_path / "script.py").write_text(script + "print(float(metrics['objective/scores']))\n")
    assert np.isfinite(float(python(tmp_path / "script.py")))
