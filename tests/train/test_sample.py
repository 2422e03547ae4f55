"""`glm-rlhf sample`: resumable, and each answer independent of the batch it was drawn in."""

from pathlib import Path

import pytest
from flax import nnx

from glm_jax import GLM, GLMConfig, save_pretrained
from glm_jax.data import records
from glm_jax.data.records import Prompt, Sample
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import cli

WORDS = "a b c d e f g h".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    tokenizer = Tokenizer.word_level(WORDS)
    config = GLMConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        eos_token_id=tokenizer.stop_ids, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    save_pretrained(GLM(config, nnx.Rngs(0)), folder / "model", tokenizer)
    prompts = [
        Prompt(id=f"p{i}", prompt=[{"role": "user", "content": " ".join(WORDS[: i + 1])}])
        for i in range(5)
    ]
    records.write(folder / "prompts.jsonl", prompts)
    return folder


def sample(folder: Path, output: str, *options: str) -> int:
    model, prompts = str(folder / "model"), str(folder / "prompts.jsonl")
    fixed = ["--n", "3", "--max-new-tokens", "6", "--max-prompt", "12", "--output"]
    return cli.main(["sample", model, prompts, *fixed, str(folder / output), *options])


def test_what_is_written(folder: Path):
    assert sample(folder, "whole.jsonl", "--batch-size", "4") == 0
    samples = records.read(folder / "whole.jsonl", Sample)
    assert [(s.id, s.sample) for s in samples] == [(f"p{i}", n) for i in range(5) for n in range(3)]
    assert all(len(s.tokens) == len(s.log_probs) <= 6 for s in samples)
    stops = Tokenizer.load(folder / "model").stop_ids
    assert all((s.finish == "stop") == (s.tokens[-1] in stops) for s in samples)
    assert all(s.finish == "stop" or len(s.tokens) == 6 for s in samples)
    assert len({s.text for s in samples}) > 5
    assert not (folder / "whole.jsonl.partial").exists()


def test_prompts_that_are_cut_are_counted(folder: Path, capsys):
    """Prompts of 5 to 9 tokens; the last two are longer than 7."""
    assert sample(folder, "all.jsonl", "--batch-size", "4") == 0
    assert "cut" not in capsys.readouterr().out
    assert sample(folder, "cut.jsonl", "--batch-size", "4", "--max-prompt", "7") == 0
    assert "cut 2 of 5 prompts to 7 tokens, from the left" in capsys.readouterr().out


def test_a_cut_off_call_goes_on(folder: Path):
    assert sample(folder, "again.jsonl", "--batch-size", "4") == 0
    text = (folder / "again.jsonl").read_text()
    lines = text.splitlines(keepends=True)
    (folder / "again.jsonl").unlink()
    (folder / "again.jsonl.partial").write_text("".join(lines[:6]) + lines[6][:20])
    assert sample(folder, "again.jsonl", "--batch-size", "4") == 0
    assert (folder / "again.jsonl").read_text() == text


def test_how_responses_are_drawn_and_end(folder: Path, capsys):
    def drawn(name: str, *options: str) -> list[Sample]:
        assert sample(folder, name, *options, "--batch-size", "15") == 0
        return records.read(folder / name, Sample)

    likeliest = drawn("likeliest.jsonl", "--temperature", "0")
    assert all(s.tokens == likeliest[i // 3 * 3].tokens for i, s in enumerate(likeliest))
    top = drawn("top.jsonl", "--top-k", "3", "--top-p", "0.01")
    assert [s.tokens for s in top] == [s.tokens for s in likeliest]
    repeated = drawn("repeated.jsonl", "--repeat-ngram", "1", "--repeat-times", "2")
    ended = [s.finish == "repetition" for s in repeated]
    assert ended == [s.tokens.count(s.tokens[-1]) == 2 for s in repeated] and any(ended)
    assert sample(folder, "wrong.jsonl", "--top-p", "2") == 2
    assert "'sampling.top_p' should be less than or equal to 1" in capsys.readouterr().err
    assert not (folder / "wrong.jsonl.yaml").exists()


def test_answers_do_not_depend_on_the_batch(folder: Path):
    assert sample(folder, "four.jsonl", "--batch-size", "4") == 0
    assert sample(folder, "seven.jsonl", "--batch-size", "7") == 0
    four, seven = (records.read(folder / f"{n}.jsonl", Sample) for n in ("four", "seven"))
    assert [s.tokens for s in four] == [s.tokens for s in seven]


def test_other_settings_and_other_files_are_left_alone(folder: Path, capsys):
    assert sample(folder, "kept.jsonl", "--batch-size", "4") == 0
    before = (folder / "kept.jsonl").read_bytes()
    assert sample(folder, "kept.jsonl", "--batch-size", "4", "--seed", "1") == 2
    assert "belongs to other settings" in capsys.readouterr().err
    assert sample(folder, "prompts.jsonl") == 2
    assert "exists already" in capsys.readouterr().err
    assert (folder / "kept.jsonl").read_bytes() == before
