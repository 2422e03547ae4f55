"""Whole runs of reward training: held-out pairs, early stopping, resuming, shifted scores."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from glm_jax.checkpoint.pretrained import load_pretrained, save_pretrained
from glm_jax.config import GLMConfig
from glm_jax.data.batches import sft_arrays
from glm_jax.data.packing import Plan
from glm_jax.data.records import Dialogue, Pair, read, write
from glm_jax.errors import InputError
from glm_jax.mesh import MeshConfig
from glm_jax.model import GLM, with_head
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import dpo, reward
from glm_jax.train.batched import score_dialogues
from glm_jax.train.dpo import DPOConfig
from glm_jax.train.heldout_pairs import HeldOut
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.reward import RewardConfig
from glm_jax.train.run_folder import read_rows
from glm_jax.train.update import MemoryConfig

WORDS = [f"w{i}" for i in range(12)]  # an even vocabulary, for meshes


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """An SFT model, pairs in which w0 is preferred and a reference."""
    here, rng = tmp_path_factory.mktemp("reward"), np.random.default_rng(0)
    tokenizer = Tokenizer.word_level(WORDS)
    config = GLMConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    save_pretrained(GLM(config, nnx.Rngs(0)), here / "sft", tokenizer)

    def text(n):
        return " ".join(rng.choice(WORDS[1:], n))

    pairs = [
        Pair(
            id=f"p{i}", prompt=[{"role": "user", "content": text(3)}], language="en",
            chosen=f"w0 {text(rng.integers(0, 4))}".strip(), rejected=text(rng.integers(1, 5)),
        )
        for i in range(96)
    ]  # fmt: skip
    write(here / "pairs.jsonl", pairs)
    answers = [Dialogue(id=p.id, prompt=p.prompt, response=p.rejected) for p in pairs[:40]]
    write(here / "reference.jsonl", answers)
    return here


def config(here: Path, run: Path, **changes) -> RewardConfig:
    given = {
        "run": str(run), "model": str(here / "sft"), "pairs": str(here / "pairs.jsonl"),
        "max_length": 16, "batch_size": 8, "epochs": 3.0, "heldout": 0.3, "evaluate_every": 4,
        "checkpoint_every": 5, "optimizer": OptimizerConfig(learning_rate=3e-3),
    }  # fmt: skip
    return RewardConfig(**(given | changes))


def logs(run: Path) -> dict[str, list]:
    return {
        name: read_rows(run / name)
        for name in ("metrics.jsonl", "evaluations.jsonl", "scores.jsonl")
    }


def weights(folder: Path) -> list[np.ndarray]:
    return [np.asarray(w) for w in jax.tree.leaves(load_pretrained(folder))]


@pytest.fixture(scope="module")
def whole(here) -> Path:
    """A run that ends early, since it learns nothing once its weights are past the best."""
    run = here / "whole"
    reward.run(config(here, run, epochs=12.0, patience=2, optimizer=HOT))
    return run


HOT = OptimizerConfig(learning_rate=0.03, max_grad_norm=None)


def test_training_ends_when_the_balanced_loss_falls_no_longer_and_the_best_model_is_kept(
    here, whole
):
    rows = read_rows(whole / "evaluations.jsonl")
    losses = [row["balanced_loss"] for row in rows]
    assert [row["step"] for row in rows] == [4 * i for i in range(len(rows))]
    assert len(rows) - 1 - int(np.argmin(losses)) == 2  # two in a row were no better
    assert len(read_rows(whole / "metrics.jsonl")) == rows[-1]["step"]
    scores = read_rows(whole / "scores.jsonl")
    gaps = np.array([row["chosen_score"] - row["rejected_score"] for row in scores])
    even = np.array([row["balanced"] for row in scores])
    assert np.mean(np.logaddexp(0, -gaps[even])) == pytest.approx(min(losses), rel=1e-4)
    best = rows[int(np.argmin(losses))]
    assert np.mean(gaps > 0) == pytest.approx(best["accuracy"])
    assert not (whole / "best").exists() and not (whole / "checkpoints").exists()


def test_lengths_are_those_that_annotators_saw_whatever_training_cuts(here):
    pairs = read(here / "pairs.jsonl", Pair)
    tokenizer = Tokenizer.load(here / "sft")
    memory = MemoryConfig()
    held_out = HeldOut.of(pairs, tokenizer, 10, batch=8, unit=1, seed=0, memory=memory)
    whole = HeldOut.of(pairs, tokenizer, 16, batch=8, unit=1, seed=0, memory=memory)
    assert held_out.lengths_2xN.max() == whole.lengths_2xN.max() == 5  # which 10 tokens cut
    longer = np.diff(held_out.lengths_2xN[:, held_out.balanced_N], axis=0)
    assert np.sign(longer).sum() == 0


def test_the_scores_of_held_out_pairs_are_told_with_what_they_may_depend_on(here, whole):
    rows, pairs = read_rows(whole / "scores.jsonl"), read(here / "pairs.jsonl", Pair)
    by_id = {pair.id: pair for pair in pairs}
    assert 15 < len(rows) < 45
    longer = 0
    for row in rows:
        pair = by_id[row["id"]]
        assert row["chosen_tokens"] == len(pair.chosen.split()) + 1  # and the end
        assert row["rejected_tokens"] == len(pair.rejected.split()) + 1
        assert (row["turns"], row["language"], row["category"]) == (1, "en", None)
        longer += row["balanced"] * np.sign(row["chosen_tokens"] - row["rejected_tokens"])
    assert longer == 0


class Killed(BaseException):
    """What no code here catches."""


@pytest.mark.parametrize("at", [7, -1])
def test_a_killed_run_comes_to_the_same_end_bit_for_bit(here, whole, tmp_path, monkeypatch, at):
    """Also where it ends early: what it has seen of the held-out pairs comes back."""
    at %= len(read_rows(whole / "metrics.jsonl"))
    given = config(here, tmp_path / "run", epochs=12.0, patience=2, optimizer=HOT)
    get = reward.PairBatches.__getitem__

    def killed(self, i):
        if i == at and self._weights_N.sum() and len(self) > 20:  # those of training
            raise Killed
        return get(self, i)

    monkeypatch.setattr(reward.PairBatches, "__getitem__", killed)
    with pytest.raises(Killed):
        reward.run(given)
    assert not (tmp_path / "run/model").exists()
    monkeypatch.setattr(reward.PairBatches, "__getitem__", get)
    reward.run(given)
    assert logs(tmp_path / "run") == logs(whole)
    for a, b in zip(weights(tmp_path / "run/model"), weights(whole / "model"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_reference_answers_come_to_average_0(here, tmp_path):
    given = config(here, tmp_path / "run", epochs=1.0, l2=0.0, reference=f"{here}/reference.jsonl")
    folder = reward.run(given)
    plain = reward.run(dataclasses.replace(given, run=str(tmp_path / "plain"), reference=""))
    model, unshifted = load_pretrained(folder), load_pretrained(plain)
    tokenizer = Tokenizer.load(folder)
    arrays, _ = sft_arrays(read(here / "reference.jsonl", Dialogue), tokenizer, 16)
    scores, before = score_dialogues(model, arrays), score_dialogues(unshifted, arrays)
    assert abs(scores.mean()) < 1e-6 < abs(before.mean())
    np.testing.assert_allclose(scores, before - before.mean(), atol=1e-6)
    shift = json.loads((folder / "config.json").read_text())["score_shift"]
    assert shift == pytest.approx(before.mean(), abs=1e-6)
    assert repr(shift) in (folder / "README.md").read_text()
    assert not (plain / "README.md").exists()
    rows = [read_rows(run.parent / "scores.jsonl") for run in (folder, plain)]
    for a, b in zip(*rows, strict=True):
        assert a["chosen_score"] == pytest.approx(b["chosen_score"] - shift, abs=1e-5)
    # in both namings, and not under another head
    for naming in ("transformers", "chatglm"):
        save_pretrained(model, tmp_path / naming, tokenizer, naming=naming)
        again = load_pretrained(tmp_path / naming)
        np.testing.assert_array_equal(score_dialogues(again, arrays), scores)
    assert with_head(model, "value", nnx.Rngs(0)).config.score_shift == 0.0


def test_transformers_gives_the_same_scores_once_the_shift_is_taken_off(here, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    given = config(here, tmp_path / "run", epochs=1.0, reference=f"{here}/reference.jsonl")
    folder = reward.run(given)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    theirs.config.pad_token_id = None  # here the end of a text, whose score it would look before
    arrays, _ = sft_arrays(read(here / "reference.jsonl", Dialogue), Tokenizer.load(folder), 16)
    ours = score_dialogues(load_pretrained(folder), arrays)
    for row, length, score in zip(arrays.tokens_NxT[:4], arrays.lengths_N, ours, strict=False):
        with torch.no_grad():
            found = theirs(torch.tensor(row[None, :length].astype(np.int64))).logits[0, 0]
        assert float(found) - theirs.config.score_shift == pytest.approx(score, abs=1e-5)


def test_margins_and_weights_of_the_pairs_are_used_and_dpo_refuses_them(here, tmp_path):
    pairs = read(here / "pairs.jsonl", Pair)
    given = {"epochs": 1.0, "heldout": 0.0}
    losses = []
    for name, changes in {"none": {}, "margin": {"margin": 2.0}, "weight": {"weight": 3.0}}.items():
        file = tmp_path / f"{name}.jsonl"
        write(file, [dataclasses.replace(pair, **changes) for pair in pairs])
        reward.run(config(here, tmp_path / name, pairs=str(file), **given))
        losses.append([row["loss"] for row in read_rows(tmp_path / name / "metrics.jsonl")])
        if changes:
            wanted = DPOConfig(run=str(tmp_path / "dpo"), model=str(here / "sft"), pairs=str(file))
            with pytest.raises(InputError, match=f"'p0' has a {name}, which the loss of DPO"):
                dpo.run(wanted)
            assert not (tmp_path / "dpo").exists()
    none, margin, weight = losses
    assert margin[0] > none[0] + 1.0
    np.testing.assert_allclose(weight, none, rtol=1e-5)  # all weigh the same
    assert not (tmp_path / "none/scores.jsonl").exists()


def test_micro_batches_and_a_mesh_change_nothing(here, tmp_path):
    """The packing is another, the pairs of each batch are the same."""
    given = {"epochs": 1.0, "heldout": 0.0}
    losses = {}
    mesh = MeshConfig(fsdp=2, tensor=2, data=2)
    for name, changes in {
        "whole": {}, "parts": {"memory": MemoryConfig(rows=2)},
        "mesh": {"mesh": mesh, "memory": MemoryConfig(rows=4)},
    }.items():  # fmt: skip
        reward.run(config(here, tmp_path / name, **given, **changes))
        rows = read_rows(tmp_path / name / "metrics.jsonl")
        losses[name] = [row["loss"] for row in rows]
    np.testing.assert_allclose(losses["parts"], losses["whole"], rtol=1e-4)
    np.testing.assert_allclose(losses["mesh"], losses["whole"], rtol=1e-4)


@pytest.mark.parametrize(
    ("rows", "ways", "expected"), [(None, 1, 12), (4, 1, 4), (3, 1, 3), (1, 1, 1), (1, 2, 2)]
)
def test_as_many_rows_at_once_as_memory_holds_tokens(here, tmp_path, rows, ways, expected):
    given = config(
        here, tmp_path, batch_size=24, memory=MemoryConfig(rows=rows), mesh=MeshConfig(data=ways)
    )
    assert given.rows_at_once(Plan(12, 3, (30, 32), [], [])) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heldout_pairs": "x.jsonl"}, "not both"),
        ({"heldout": 0.0, "patience": 2}, "patience needs held-out pairs"),
        ({"heldout": 0.001}, "leaves 96 pairs to learn from and 0 held out"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
    ],
)
def test_settings_that_cannot_be_are_refused(here, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        reward.run(config(here, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_held_out_pairs_are_no_ties_and_share_no_prompt_with_training(here, tmp_path, capsys):
    pairs = read(here / "pairs.jsonl", Pair)
    files = {
        "training": pairs[:60],
        "ties": [dataclasses.replace(pair, tie=True) for pair in pairs[60:]],
        "shared": pairs[50:],
    }
    for name, some in files.items():
        write(tmp_path / f"{name}.jsonl", some)
    files = {name: str(tmp_path / f"{name}.jsonl") for name in files}
    given = config(here, tmp_path / "run", pairs=files["training"], heldout=0.0, epochs=0.2)
    for pairs_file, heldout, message in [
        ("training", "ties", "ties.jsonl: all pairs are ties"),
        ("ties", "shared", "ties.jsonl: all pairs are ties"),
        ("training", "training", "training.jsonl: every first user message stands in"),
    ]:
        changes = {"pairs": files[pairs_file], "heldout_pairs": files[heldout]}
        with pytest.raises(InputError, match=message):
            reward.run(dataclasses.replace(given, patience=1, **changes))
    assert not (tmp_path / "run").exists()
    reward.run(dataclasses.replace(given, heldout_pairs=files["shared"]))
    assert "left out 10 of 46 held-out pairs" in capsys.readouterr().out
    scores = read_rows(tmp_path / "run/scores.jsonl")
    assert [row["id"] for row in scores] == [f"p{i}" for i in range(60, 96)]


def test_the_untrained_head_is_never_kept(here, tmp_path, capsys):
    """Even where it is better than all that follows, and what is kept is said."""
    wild = OptimizerConfig(learning_rate=3.0, max_grad_norm=None)
    given = config(here, tmp_path / "run", epochs=1.0, optimizer=wild)
    folder = reward.run(given)
    rows = read_rows(tmp_path / "run/evaluations.jsonl")
    assert min(rows, key=lambda row: row["balanced_loss"])["step"] == 0
    best = min(rows[1:], key=lambda row: row["balanced_loss"])
    scores = read_rows(tmp_path / "run/scores.jsonl")
    right = np.mean([0.5 + 0.5 * np.sign(r["chosen_score"] - r["rejected_score"]) for r in scores])
    assert right == pytest.approx(best["accuracy"])
    steps = len(read_rows(tmp_path / "run/metrics.jsonl"))
    said = f"kept the model after step {best['step']} of {steps}"
    assert said in capsys.readouterr().out
    summary = json.loads((tmp_path / "run/report.json").read_text())
    assert summary["kept"] == {"step": best["step"], "steps": steps}
    assert (
        f"model after step {best['step']} of {steps}" in (tmp_path / "run/report.html").read_text()
    )
    assert reward.run(given) == folder
    assert f"finished, it lies in {folder}" in capsys.readouterr().out.replace("\n", "")
