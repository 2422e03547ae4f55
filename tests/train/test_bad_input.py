"""Bad input to a training command: one clear line, exit status 2, and nothing written."""

from pathlib import Path

import pytest

from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import cli

DIALOGUE = '{"prompt": [{"role": "user", "content": "a"}], "response": "b"}\n'
PAIR = '{"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "a"}\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Tokenizer.word_level(["a", "b"]).save(tmp_path / "tokenizer")
    Path("good.jsonl").write_text(DIALOGUE)
    Path("pairs.jsonl").write_text(PAIR)
    Path("empty.jsonl").write_text("")
    Path("broken.jsonl").write_text(DIALOGUE + '{"prompt": [\n')
    Path("field.jsonl").write_text(DIALOGUE * 2 + DIALOGUE.replace("response", "answer"))
    Path("role.jsonl").write_text(DIALOGUE.replace('"user"', '"human"'))
    Path("sft.yaml").write_text(
        "run: out\ndata: [good.jsonl]\ntokenizer: tokenizer\nmax_length: 16\nsteps: 2\n"
    )
    Path("reward.yaml").write_text("run: out\nmodel: nowhere\npairs: pairs.jsonl\n")
    Path("ppo.yaml").write_text(
        "run: out\nmodel: nowhere\nreward_model: nowhere\nprompts: good.jsonl\n"
        "supervised: [good.jsonl]\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["sft", "sft.yaml", "data=[absent.jsonl]"], "absent.jsonl: no such file"),
        (["sft", "sft.yaml", "data=[broken.jsonl]"], "broken.jsonl:2: not JSON"),
        (["sft", "sft.yaml", "data=[field.jsonl]"], "field.jsonl:3: field 'response' is missing"),
        (["sft", "sft.yaml", "data=[role.jsonl]"], "role.jsonl:1: field 'prompt.0.role'"),
        (["sft", "sft.yaml", "data=[empty.jsonl]"], "empty.jsonl: no records"),
        (["sft", "sft.yaml", "stepz=3"], "did you mean 'steps'"),
        (["sft", "sft.yaml", "optimizer.learning_rat=1"], "did you mean 'optimizer.learning_rate'"),
        (["sft", "sft.yaml", "steps=many"], "steps"),
        (["sft", "sft.yaml", "batch_size=0"], "greater than 0"),
        (["sft", "sft.yaml", "optimizer.learning_rate=.nan"], "finite"),
        (["sft", "sft.yaml", "max_length=2"], "a prompt may take 1 of 2 tokens"),
        (["ppo", "ppo.yaml", "ppo.epochs=0"], "greater than 0"),
        (["sft", "sft.yaml", "tokenizer=nowhere"], "nowhere"),
        (["sft", "sft.yaml", "run=''"], "the key 'run' of SFTConfig is missing"),
        (["reward", "reward.yaml"], "nowhere"),
        (["ppo", "ppo.yaml", "ppo.minibatches=3"], "must divide"),
        (["ppo", "ppo.yaml", "supervised=[]"], "supervised"),
        (["ppo", "ppo.yaml", "ppo.sampling.temperature=0"], "temperature"),
        (["ppo", "ppo.yaml", "ppo.sampling.top_p=0.9"], "probabilities over all tokens"),
        (["sample", "nowhere", "good.jsonl", "--output", "out"], "nowhere"),
        (["sample", "nowhere", "good.jsonl", "--output", "out", "--temperature", "-1"],
         "'sampling.temperature' should be"),
        (["pipeline", "real-data", "files.pairs=absent.jsonl", "run=out",
          "files.sft=[good.jsonl]"], "absent.jsonl: no such file"),
    ],
)  # fmt: skip
def test_one_line_and_nothing_written(here: Path, capsys, command: list[str], message: str):
    assert cli.main(command) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("glm-rlhf: error: ") and errors.count("\n") == 1, errors
    assert message in errors
    assert not Path("out").exists()


def test_a_folder_that_is_no_run_is_left_alone(here: Path, capsys):
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("years of work")
    assert cli.main(["sft", "sft.yaml"]) == 2
    assert "out is not empty and holds no config.yaml" in capsys.readouterr().err
    assert [file.name for file in Path("out").iterdir()] == ["thesis.tex"]
