"""Prompts are kept whose answers differ in reward, and the table says why."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from glm_jax import GLM, GLMConfig, load_pretrained, save_pretrained
from glm_jax.configuration import save
from glm_jax.data import records
from glm_jax.data.records import Prompt, Sample
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import cli
from glm_jax.train.batched import score_samples
from glm_jax.train.selection import SelectionConfig, selected

WORDS = "a b c d e f g h".split()  # noqa: SIM905
K = 4


def model(head: str, seed: int, tokenizer: Tokenizer) -> GLM:
    config = GLMConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        eos_token_id=tokenizer.stop_ids, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    return GLM(config, nnx.Rngs(seed), head)


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    """A policy, a reward model, seven prompts of three categories, and a configuration."""
    monkeypatch.chdir(tmp_path)
    tokenizer = Tokenizer.word_level(WORDS)
    save_pretrained(model("lm", 0, tokenizer), Path("policy"), tokenizer)
    save_pretrained(model("reward", 1, tokenizer), Path("reward"), tokenizer)
    prompts = [
        Prompt(id=f"p{i}", prompt=[{"role": "user", "content": " ".join(WORDS[: i + 1])}],
               category=("qa", "json", None)[i % 3])
        for i in range(7)
    ]  # fmt: skip
    records.write("prompts.jsonl", prompts)
    config = SelectionConfig(
        run="out", model="policy", reward_model="reward", prompts="prompts.jsonl", samples=K,
        threshold=0.1, max_prompt=16, batch_size=5,
    )  # fmt: skip
    save(config, "select.yaml")
    return tmp_path


def select(*overrides: str) -> int:
    return cli.main(["select", "select.yaml", "sampling.max_new_tokens=6", *overrides])


def table(run: str = "out") -> list[dict]:
    return [json.loads(line) for line in (Path(run) / "table.jsonl").read_text().splitlines()]


def test_the_table_is_numpys_and_the_kept_prompts_are_those_it_names(here: Path, capsys):
    middle = "threshold=0.6"
    assert select(middle) == 0
    samples = records.read("out/samples.jsonl", Sample)
    scores = np.array([s.score for s in samples]).reshape(7, K)
    tokenizer = Tokenizer.load("policy")
    again = score_samples(load_pretrained("reward", "reward"), tokenizer, samples, 16)
    np.testing.assert_allclose(scores.ravel(), again, atol=1e-5)
    assert 0 < (scores.std(axis=1) > 0.6).sum() < 7
    for row, of_prompt in zip(table(), scores, strict=True):
        found = [row[name] for name in ("n", "mean", "std", "min", "max")]
        spread = np.sqrt(np.mean((of_prompt - of_prompt.mean()) ** 2))
        expected = [K, of_prompt.mean(), spread, of_prompt.min(), of_prompt.max()]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert row["kept"] == (row["std"] > 0.6)
    prompts = records.read("prompts.jsonl", Prompt)
    kept = [p for p, row in zip(prompts, table(), strict=True) if row["kept"]]
    assert [p.id for p in prompts] == [row["id"] for row in table()]
    assert [p.category for p in prompts] == [row["category"] for row in table()]
    assert records.read("out/prompts.jsonl", Prompt) == kept
    told = capsys.readouterr().out
    assert f"wrote {len(kept)} of 7 prompts to out/prompts.jsonl" in told
    for category, total in (("qa", 3), ("json", 2), ("(none)", 2)):
        n = sum((p.category or "(none)") == category for p in kept)
        assert f"{category}: kept {n} of {total}" in told


def test_answers_that_never_differ_teach_nothing(here: Path, capsys):
    """Greedy answers of a prompt are one answer, whose score has no variance."""
    assert select("sampling.temperature=0", "threshold=1e-4") == 2
    assert "of 7 prompts none has a standard deviation" in capsys.readouterr().err
    assert all(row["std"] < 1e-6 and not row["kept"] for row in table())
    assert len({round(row["mean"], 4) for row in table()}) > 3  # of a prompt, not of all
    assert not Path("out/prompts.jsonl").exists()


def test_a_cut_off_call_goes_on(here: Path):
    assert select() == 0
    names = ("samples.jsonl", "table.jsonl", "prompts.jsonl")
    whole = {name: (here / "out" / name).read_text() for name in names}
    for name in names:
        (here / "out" / name).unlink()
    lines = whole["samples.jsonl"].splitlines(keepends=True)
    cut = "".join(lines[:10]) + lines[10][:20]
    (here / "out/samples.jsonl.partial").write_text(cut.replace(lines[2], lines[1]))
    assert select() == 0
    assert whole["table.jsonl"] != (here / "out/table.jsonl").read_text()  # what was there counts
    (here / "out/samples.jsonl").unlink()
    (here / "out/samples.jsonl.partial").write_text(cut)
    assert select() == 0
    assert whole == {name: (here / "out" / name).read_text() for name in names}


def test_another_threshold_needs_no_new_answers_and_other_settings_are_refused(here: Path, capsys):
    assert select() == 0
    before = table()
    for name in ("policy", "reward"):
        next((here / name).glob("*.safetensors")).unlink()
    assert select("threshold=null", "keep=0.3") == 0
    assert len(records.read("out/prompts.jsonl", Prompt)) == 2
    stds = sorted((row["std"] for row in table()), reverse=True)
    assert {row["std"] for row in table() if row["kept"]} == set(stds[:2])
    assert [row | {"kept": 0} for row in table()] == [row | {"kept": 0} for row in before]
    for change in ("seed=1", "reward_model=policy"):
        assert select(change) == 2
        assert "out belongs to another configuration" in capsys.readouterr().err
    records.write("prompts.jsonl", records.read("prompts.jsonl", Prompt)[1:])
    assert select() == 2
    assert "prompts.jsonl is not the file that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["keep=0.5"], "give one of `threshold` and `keep`"),
        (["threshold=null"], "give one of `threshold` and `keep`"),
        (["threshold=0"], "greater than 0"),
        (["threshold=null", "keep=1.5"], "less than or equal to 1"),
        (["samples=1"], "greater than or equal to 2"),
        (["prompts=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["model=nowhere"], "nowhere"),
        (["reward_model=other"], "other has another tokenizer than policy"),
        (["reward_model=policy"], "policy"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(here: Path, capsys, overrides, message):
    shutil.copytree("reward", "other")
    Tokenizer.word_level(WORDS[::-1]).save(Path("other"))
    assert select(*overrides) == 2
    error = capsys.readouterr().err
    assert error.startswith("glm-rlhf: error: ") and error.count("\n") == 1 and message in error
    assert not Path("out").exists()


def test_what_stays_by_hand():
    std = np.array([0.2, 0.5, 0.1, 0.5, 0.3])
    assert selected(std, threshold=0.2).tolist() == [False, True, False, True, True]
    assert selected(std, keep=0.2).tolist() == [False, True, False, False, False]
    assert selected(std, keep=0.6).tolist() == [False, True, False, True, True]
    assert selected(std, keep=0.01).sum() == 1 and selected(std, keep=1.0).all()
