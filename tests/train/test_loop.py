"""Runs that are killed, resumed, stopped, or refused."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax import configuration
from glm_jax.errors import InputError, RunStopped
from glm_jax.sampling import Sampling
from glm_jax.train import loop
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.ppo.iteration import PPOBatch, PPOHyperparameters, init, ppo_step
from glm_jax.train.run_folder import begun, claim, read_rows
from glm_jax.train.sft import SFTConfig


class Killed(BaseException):
    """What no code here catches."""


@jax.jit
def mix(state, batch):
    """A step whose result depends on every batch and their order."""
    state = {"sum": 0.9 * state["sum"] + batch, "count": state["count"] + 1}
    return state, {"loss": state["sum"], "batch": batch}, state["count"]


def zero():
    return {"sum": jnp.float32(0), "count": jnp.int32(0)}


def train(folder, steps=8, *, run=1, kill=None, **arguments):
    """Batches are floats i + run / 10: so each logged line tells which run wrote it."""

    def batch_at(i):
        if i == kill:
            raise Killed
        return np.float32(i + run / 10)

    arguments = {"label": "test", "checkpoint_every": 3, "step": mix} | arguments
    return loop.train(folder, zero(), arguments.pop("step"), batch_at, steps, **arguments)


def test_a_killed_run_goes_on_where_its_checkpoint_is(tmp_path):
    """Killed at step 5, with steps 0 to 3 logged and a checkpoint of 3 steps."""
    log = tmp_path / "metrics.jsonl"
    with pytest.raises(Killed):
        train(tmp_path, run=1, kill=5)
    assert [row["step"] for row in read_rows(log)] == [0, 1, 2, 3]
    assert loop.steps_done(tmp_path) == 3
    with open(log, "a") as out:
        out.write('{"step": 4, "lo')  # cut short by the kill
    state = train(tmp_path, run=2)
    rows = read_rows(log)
    assert [row["step"] for row in rows] == list(range(8)) and state["count"] == 8
    runs = [round(10 * (row["batch"] - row["step"])) for row in rows]
    assert runs == [1, 1, 1, 2, 2, 2, 2, 2]
    assert rows[-1]["loss"] == state["sum"]


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, kill=2)
    assert train(tmp_path)["count"] == 8
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == list(range(8))


class Read:
    """A number on the device, as far as the loop can tell: it says when it is read."""

    def __init__(self, i, seen):
        self.i, self.seen = i, seen

    def __array__(self, dtype=None, copy=None):
        self.seen.append(("read", self.i))
        return np.asarray(self.i, dtype)


def test_a_step_is_read_once_the_next_has_been_handed_over(tmp_path):
    """Steps that are watched or saved after are read at once: the device waits then anyway."""
    seen = []

    def step(state, batch):
        i = len([event for event in seen if event[0] == "step"])
        seen.append(("step", i))
        return state, {"loss": Read(i, seen)}, Read(i, seen)

    def watch(i, state):
        seen.append(("watch", i))

    def after(i, metrics, outputs):
        assert type(metrics["loss"]) is int and type(outputs[0]) is np.ndarray  # on the host
        seen.append(("after", i))

    loop.train(
        tmp_path, zero(), step, lambda i: None, 7, label="test", checkpoint_every=4, watch=watch,
        watch_every=6, after=after,
    )  # fmt: skip
    read = {i: [("read", i), ("read", i), ("after", i)] for i in range(7)}
    assert seen == [
        ("watch", 0), ("step", 0), ("step", 1), *read[0], ("step", 2), *read[1], ("step", 3),
        *read[2], *read[3], ("step", 4), ("step", 5), *read[4], *read[5], ("watch", 6), ("step", 6),
        *read[6], ("watch", 7),
    ]  # fmt: skip


def test_the_time_of_a_step_is_its_own(tmp_path):
    """Not that of a slow look, nor of the steps before and behind it."""
    free = 0.0  # when the device has done all that it was given

    class Late:
        def __init__(self, ready):
            self.ready = ready

        def __array__(self, dtype=None, copy=None):
            time.sleep(max(0.0, self.ready - time.perf_counter()))
            return np.asarray(0.0, dtype)

    def step(state, batch):
        nonlocal free
        free = max(free, time.perf_counter()) + 0.2
        return state, {"loss": Late(free)}

    train(
        tmp_path, 5, step=step, watch=lambda i, state: time.sleep(0.5), watch_every=2,
        timing=lambda metrics, seconds: {"time/step": seconds},
    )  # fmt: skip
    times = [row["time/step"] for row in read_rows(tmp_path / "metrics.jsonl")]
    assert len(times) == 5 and all(0.1 < seconds < 0.35 for seconds in times), times


@pytest.mark.parametrize("at", [4, 5])  # 5 is read at once, since a checkpoint follows
def test_no_line_is_written_twice_when_a_run_stops(tmp_path, at):
    def stop(i, metrics, outputs):
        if i == at:
            raise RunStopped("enough")

    with pytest.raises(RunStopped):
        train(tmp_path, after=stop)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == list(range(6))


def test_a_stopped_run_keeps_its_state_and_the_line_that_says_why(tmp_path):
    def stop(i, metrics, outputs):
        if i == 4:
            raise RunStopped("enough")

    with pytest.raises(RunStopped):
        train(tmp_path, after=stop)
    assert loop.steps_done(tmp_path) == 6  # metrics are read one step late
    assert read_rows(tmp_path / "metrics.jsonl")[-1]["step"] == 5  # every step that was done
    assert train(tmp_path)["count"] == 8


def test_a_finished_run_keeps_no_checkpoint(tmp_path):
    train(tmp_path, 6)
    assert loop.steps_done(tmp_path) == 6
    state = train(tmp_path, 6, kill=0)  # nothing is left to do
    assert state["count"] == 6
    loop.finish(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_whose_last_state_is_kept_goes_on_further(tmp_path):
    train(tmp_path, 4, keep_last=True)
    assert loop.steps_done(tmp_path) == 4
    state = train(tmp_path, 8)
    assert state["sum"] == train(tmp_path / "whole", 8)["sum"]


def test_ppo_resumes_bit_for_bit(tiny, tmp_path):
    """Weights, moments, the schedule's count, the key and the iteration all come back."""
    config = PPOHyperparameters(
        sampling=Sampling(max_new_tokens=4), iterations=4, batch_size=4, supervised_coefficient=0.0,
        actor=OptimizerConfig(learning_rate=1e-3, schedule="linear"),
    )  # fmt: skip
    reward_model, reference = tiny("reward", seed=1), tiny(seed=2)

    def batch_at(i):
        tokens = np.random.default_rng(i).integers(1, 20, (4, 3), np.int32)
        rows = np.arange(4 * i, 4 * i + 4, dtype=np.int32)
        return PPOBatch(tokens, np.ones((4, 3), bool), rows, np.zeros(4, np.float32), None)

    def train(folder, steps, seed):
        state = init(config, tiny(seed=seed), reference, reward_model, seed=seed)
        frozen = state.frozen
        return loop.train(
            folder, state.replace(frozen=None), lambda s, b: ppo_step(s, frozen, b), batch_at,
            steps, label="test", checkpoint_every=2,
        )  # fmt: skip

    whole = train(tmp_path / "whole", 4, seed=0)
    train(tmp_path / "halves", 2, seed=0)
    halves = train(tmp_path / "halves", 4, seed=5)  # what it is given counts for nothing
    assert halves.iteration == 4
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(halves), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    logs = [read_rows(tmp_path / run / "metrics.jsonl") for run in ("whole", "halves")]
    assert logs[0] == logs[1] and len(logs[0]) == 4


def test_a_folder_belongs_to_one_configuration(tmp_path):
    config = SFTConfig(data=("a.jsonl",), steps=10)
    folder = claim(tmp_path / "run", config)
    assert claim(folder, config) == folder
    rate = dataclasses.replace(config.optimizer, learning_rate=0.5)
    other = dataclasses.replace(config, steps=11, optimizer=rate)
    with pytest.raises(InputError) as error:
        claim(folder, other)
    for part in ("optimizer.learning_rate is 0.002 there and 0.5 here", "steps is 10 there and 11"):
        assert part in str(error.value)
    assert claim(folder, config) == folder  # the refused one left no trace
    may_differ = ("steps", "optimizer.learning_rate")
    assert begun(folder, other, may_differ)
    claim(folder, other, may_differ)
    assert configuration.load(SFTConfig, folder / "config.yaml") == other
    with pytest.raises(InputError, match="seed is 0 there and 1 here"):
        begun(folder, dataclasses.replace(other, seed=1), may_differ)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not a run's folder"):
        claim(tmp_path, SFTConfig())
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]
