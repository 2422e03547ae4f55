"""Whole PPO runs in their folders: watched, killed, resumed, extended, stopped, refused."""

import json
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ppo_example import close, example, logged, weights, write_models

from glm_jax.checkpoint.pretrained import load_pretrained, save_pretrained
from glm_jax.errors import InputError, RunStopped
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import loop, ppo
from glm_jax.train.ppo import training

LOGS = "metrics.jsonl", "completions.jsonl", "evaluation.jsonl", "alarms.jsonl"


class Killed(BaseException):
    """What no code here catches."""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def whole(files: Path, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    ppo.run(example(files, run))
    return run


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def events(folder: Path) -> dict[str, dict[int, float]]:
    """Scalars by name and step, as TensorBoard shows them: of the files by name, a start of a
    session takes back what stands at its step and behind it."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            if event.session_log.status == SessionLog.START:
                for name, values in found.items():
                    found[name] = {s: v for s, v in values.items() if s < event.step}
            for value in event.summary.value:
                assert event.step not in found.setdefault(value.tag, {}), "shown twice"
                found[value.tag][event.step] = value.simple_value
    return found


def test_watching_changes_nothing_of_the_training(files, whole, tmp_path):
    for name, changes in {"unwatched": {"eval": {}}, "often": {"eval__every": 1}}.items():
        ppo.run(example(files, tmp_path / name, **changes))
        assert same(whole / "model", tmp_path / name / "model")
        assert logged(whole / "metrics.jsonl") == logged(tmp_path / name / "metrics.jsonl")
    assert not (tmp_path / "unwatched/evaluation").exists()


def test_what_is_watched(whole):
    rows = logged(whole / "evaluation.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 4, 6]
    names = "score", "win_rate", "heldout_score", "heldout_win_rate", "kl", "length", "distinct_4"
    for mode in ("greedy", "sampled"):
        for name in (*names, "score_minus_reference", "truncated"):
            assert {f"eval/{mode}/{name}", f"eval/{mode}/{name}/a", f"eval/{mode}/{name}/b"} <= {
                *rows[0]
            }
        assert rows[0][f"eval/{mode}/win_rate"] == 0.5  # the SFT model against itself
        assert rows[0][f"eval/{mode}/kl"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["eval/sampled/score"] != rows[0]["eval/sampled/score"]
    answers = logged(whole / "evaluation/00006.jsonl")
    assert [row["mode"] for row in answers] == ["greedy"] * 6 + ["sampled"] * 6
    scores = [row["score"] for row in answers[6:]]
    assert np.mean(scores) == pytest.approx(rows[-1]["eval/sampled/score"])


def test_a_killed_run_ends_as_if_nothing_had_been(files, whole, tmp_path):
    """Killed while iteration 5 runs: cut back to the checkpoint of 4, evaluations and all."""

    def kill(i, metrics, completions):
        if i == 4:
            raise Killed

    config = example(files, tmp_path / "run")
    with pytest.raises(Killed):
        ppo.run(config, kill)
    assert loop.steps_done(tmp_path / "run") == 4
    (tmp_path / "run/evaluation/00005.jsonl").write_text("what a kill may leave")
    ppo.run(config)
    for name in LOGS:
        assert logged(whole / name) == logged(tmp_path / "run" / name), name
    for name in ("model", "best"):
        assert same(whole / name, tmp_path / "run" / name)
    assert (whole / "best.json").read_text() == (tmp_path / "run/best.json").read_text()
    answers = [sorted(run.glob("evaluation/*")) for run in (whole, tmp_path / "run")]
    assert [f.name for f in answers[0]] == [f.name for f in answers[1]]
    assert [f.read_text() for f in answers[0]] == [f.read_text() for f in answers[1]]
    shown = [events(run / "tensorboard") for run in (whole, tmp_path / "run")]
    for name in shown[0]:
        if not name.startswith("time/"):
            assert shown[0][name] == shown[1][name], name


def test_tensorboard_shows_what_the_lines_say(whole):
    shown = events(whole / "tensorboard")
    for file in ("metrics.jsonl", "evaluation.jsonl"):
        for line in (whole / file).read_text().splitlines():
            row = json.loads(line)
            step = row.pop("step")
            for name, value in row.items():
                if value is None:  # no answer had four tokens
                    continue
                assert shown[name][step] == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_a_run_may_be_made_longer_and_nothing_else(files, whole, tmp_path):
    run = tmp_path / "run"
    ppo.run(example(files, run, ppo__iterations=3))
    ppo.run(example(files, run, eval__every=1, checkpoint_every=1, trackers=[]))
    assert same(whole / "model", run / "model")
    assert logged(whole / "metrics.jsonl") == logged(run / "metrics.jsonl")
    stamp = (run / "model/model.safetensors").stat().st_mtime_ns
    ppo.run(example(files, run))
    assert (run / "model/model.safetensors").stat().st_mtime_ns == stamp  # all was done
    for path, value in {"ppo__kl_coefficient": 0.1, "seed": 1, "guards__max_kl": 9.0}.items():
        with pytest.raises(InputError, match=path.replace("__", ".")):
            ppo.run(example(files, run, **{path: value}))
    with pytest.raises(InputError, match=r"ppo\.iterations is 5, but 6 are done"):
        ppo.run(example(files, run, ppo__iterations=5))


def test_a_run_on_a_mesh_is_the_run_on_one_device_and_resumes(files, tmp_path):
    """Loaded onto the mesh, watched, killed, resumed and saved there."""
    config = {"ppo__batch_size": 8, "ppo__iterations": 4, "checkpoint_every": 2}
    ppo.run(example(files, tmp_path / "one", **config))
    config["mesh"] = {"fsdp": 4, "data": 2}
    ppo.run(example(files, tmp_path / "mesh", **config))

    def kill(i, metrics, completions):
        if i == 2:
            raise Killed

    with pytest.raises(Killed):
        ppo.run(example(files, tmp_path / "killed", **config), kill)
    ppo.run(example(files, tmp_path / "killed", **config))
    assert same(tmp_path / "mesh/model", tmp_path / "killed/model")
    close(*(weights(tmp_path / name / "model") for name in ("mesh", "one")), atol=2e-3)
    texts = [
        [row["text"] for row in logged(tmp_path / name / "completions.jsonl")][:16]
        for name in ("one", "mesh")
    ]
    assert texts[0] == texts[1]


def test_held_out_prompts_that_changed_are_refused(files, tmp_path):
    run, watched = tmp_path / "run", tmp_path / "watched.jsonl"
    lines = (files / "watched.jsonl").read_text().splitlines(keepends=True)
    watched.write_text("".join(lines))
    ppo.run(example(files, run, eval__prompts=str(watched), ppo__iterations=2))
    watched.write_text("".join(reversed(lines)))
    with pytest.raises(InputError, match=r"eval\.prompts: the file has changed"):
        ppo.run(example(files, run, eval__prompts=str(watched), ppo__iterations=3))


def test_the_kl_guard_turns_beta_up(whole):
    rows = logged(whole / "metrics.jsonl")
    acted = [row["objective/kl"] > 0.05 for row in rows[:-1]]
    for over, row, following in zip(acted, rows[:-1], rows[1:], strict=True):
        expected = row["objective/kl_coef"] * (1.5 if over else 1.0)
        assert following["objective/kl_coef"] == pytest.approx(expected)
    assert True in acted and False in acted


def test_a_guard_stops_the_run_with_its_state_saved(files, tmp_path):
    config = example(files, tmp_path / "run", guards={"max_truncated": 0.0})
    with pytest.raises(RunStopped, match="guard max_truncated: iteration 0"):
        ppo.run(config)
    assert loop.steps_done(tmp_path / "run") == 2
    assert [row["step"] for row in logged(tmp_path / "run/completions.jsonl")] == [0] * 4 + [1] * 4


def test_outputs_are_read_at_one_place(files, tmp_path, monkeypatch):
    """Everything that a step gives for the host is read by `loop.train`, once."""
    places, real = [], training.ppo_step

    class OnDevice:
        def __init__(self, value):
            self.value = value

        def __array__(self, dtype=None, copy=None):
            stack = traceback.extract_stack()
            places.append([f.name for f in stack if f.filename.endswith("train/loop.py")][-1])
            return np.asarray(self.value, dtype)

    def step(*arguments):
        state, *outputs = real(*arguments)
        return state, *jax.tree.map(OnDevice, outputs)

    monkeypatch.setattr(training, "ppo_step", step)
    seen = []
    ppo.run(
        example(files, tmp_path / "run", ppo__iterations=2),
        lambda i, metrics, completions: seen.append(len(metrics) - 2 + len(completions)),
    )
    assert len(seen) == 2 and places == ["read"] * sum(seen)


def test_a_batch_that_breaks_the_run_is_kept(files, tmp_path):
    broken = load_pretrained(files / "reward")
    broken.head.set_value(broken.head[...] * np.nan)
    save_pretrained(broken, tmp_path / "broken", Tokenizer.load(files / "reward"))
    config = example(
        files, tmp_path / "run", reward_model=str(tmp_path / "broken"), eval={}, max_skipped=0
    )
    with pytest.raises(RunStopped, match=r"in 1 updates in a row.*run/skipped_batch\.npz"):
        ppo.run(config)
    kept = np.load(tmp_path / "run/skipped_batch.npz")  # refuses objects
    assert kept["iteration"] == 0 and kept["tokens"].shape == kept["log_probs"].shape == (4, 6)
    assert {"rows", "prompts", "prompt_mask", "reference_scores", "mask", "scores"} <= {*kept}


def test_a_reference_table_is_shared_and_refused_by_name(files, tmp_path, monkeypatch):
    table = str(tmp_path / "table.json")
    short = {"reference__table": table, "ppo__iterations": 1, "eval": {}}
    ppo.run(example(files, tmp_path / "first", **short))
    made = (tmp_path / "table.json").read_text()
    assert json.loads(made)["mean"] == pytest.approx(np.mean(json.loads(made)["scores"]))

    def never(*arguments, **settings):
        raise AssertionError("scored again")

    monkeypatch.setattr(training, "reference_scores", never)
    ppo.run(example(files, tmp_path / "second", seed=1, **short))
    assert (tmp_path / "second/reference.json").read_text() == made

    other = load_pretrained(files / "sft")
    other.head.set_value(other.head[...] * 1.5)
    save_pretrained(other, tmp_path / "other", Tokenizer.load(files / "sft"))
    first, *_ = lines = (files / "prompts.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "prompts.jsonl").write_text("".join([*lines[1:], first]))
    for words, changes in {
        "another SFT model": {"model": str(tmp_path / "other")},
        "another reward model or function": {"reward_model": str(files / "heldout")},
        "other prompts": {"prompts": str(tmp_path / "prompts.jsonl")},
        "other sampling settings": {"ppo__sampling": {"max_new_tokens": 5}},
    }.items():
        with pytest.raises(InputError, match=rf"table\.json.* was made with {words};"):
            ppo.run(example(files, tmp_path / "refused", **(short | changes)))
        assert not (tmp_path / "refused").exists()
    # the table of a run that is under way as well
    run = tmp_path / "first"
    (run / "finished.json").unlink()
    values = json.loads((run / "reference.json").read_text())
    values["made_of"]["template"] = "another"
    (run / "reference.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="another tokenizer or template"):
        ppo.run(example(files, run, **short))


def test_wandb_is_told_the_same_when_asked_for(files, tmp_path, monkeypatch):
    config = example(files, tmp_path / "run", trackers=["wandb"], ppo__iterations=2, eval__every=2)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="wandb, which is not installed"):
        ppo.run(config)
    assert not (tmp_path / "run").exists()

    told, begun = [], []
    module = SimpleNamespace(__spec__=True)
    module.init = lambda **settings: (
        begun.append(settings)
        or SimpleNamespace(
            log=lambda metrics, step: told.append((step, metrics)),
            finish=lambda: told.append("end"),
        )
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    ppo.run(config)
    assert [step for step, _ in told[:-1]] == [0, 0, 1, 2] and told[-1] == "end"
    assert "eval/sampled/score" in told[0][1] and "objective/kl" in told[1][1]
    assert begun[0]["config"]["ppo"]["iterations"] == 2
    assert not (tmp_path / "run/tensorboard").exists()
