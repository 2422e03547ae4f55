"""The command line: quick to answer, and one clear line for bad input."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glm_jax.data import records
from glm_jax.data.records import Pair
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import cli

PROGRAM = Path(sys.executable).with_name("glm-rlhf")
ASK = [{"role": "user", "content": "a fox"}]


def pair(id: str, chosen: str, rejected: str, **more) -> Pair:
    return Pair(id=id, prompt=ASK, chosen=chosen, rejected=rejected, **more)


def test_help_answers_within_a_second():
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([PROGRAM, "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 1


def test_help_imports_nothing_heavy():
    code = "import sys, glm_jax.train.cli as cli; cli._parser(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"jax", "flax", "numpy", "scipy", "pydantic", "yaml", "transformers", "matplotlib"}
    assert not heavy & set(found.stdout.split())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "COMMAND"),
        (["pop"], "invalid choice: 'pop'"),
        (["ppo"], "CONFIG"),
        (["ppo", "nowhere.yaml"], "nowhere.yaml: no such configuration file"),
        (["quickstart", "--seed", "one"], "invalid int value: 'one'"),
        (["data", "filter", "nowhere.jsonl", "--output", "x"], "nowhere.jsonl: no such file"),
        (["data", "filter", "pairs.jsonl"], "--output"),
        (["data", "filter", "pairs.jsonl", "--output", "x"], "pairs.jsonl:2: "),
        (["data", "filter", ".", "--output", "x"], "."),
        (["data", "balance", "pairs.jsonl", "--tokenizer", ".", "--output", "x", "--buckets", "0"], "0"),
        (["report", "nowhere"], "nowhere/report.json: no such file"),
        (["chat"], "PATH"),
        (["chat", "nowhere"], "nowhere"),
        (["chat", "nowhere", "--top-p", "0"], "top_p"),
        (["chat", ".", "--dtype", "float8"], "float8"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, command, message):
    good = json.dumps(records.to_dict(pair("1", "yes", "no")))
    (tmp_path / "pairs.jsonl").write_text(f'{good}\n{{"prompt": []}}\n')
    run = subprocess.run([PROGRAM, *command], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("glm-rlhf: error: ") and message in run.stderr
    assert run.stderr.count("\n") == 1 and run.stdout == ""
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_traceback_on_request(tmp_path, monkeypatch):
    command = ["report", str(tmp_path)]
    assert cli.main(command) == 2
    with pytest.raises(InputError):
        cli.main(["--traceback", *command])
    monkeypatch.setenv("GLM_RLHF_TRACEBACK", "1")
    with pytest.raises(InputError):
        cli.main(command)


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main(["quickstart"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_quickstart_hands_on_seed_and_overrides(monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "_run", lambda *call: calls.append(call))
    assert cli.main(["quickstart", "--seed", "2", "ppo.kl=0"]) == 0
    assert cli.main(["quickstart"]) == 0
    assert calls == [
        ("pipeline", "quickstart", ["run=runs/quickstart-seed2", "seed=2", "ppo.kl=0"]),
        ("pipeline", "quickstart", []),
    ]


def test_filter_and_balance_from_file_to_file(tmp_path, capsys):
    words = ["a", "fox", "sings", "of", "rain", "and", "stones"]
    Tokenizer.word_level(words).save(tmp_path / "model")
    pairs = [
        *(pair(f"longer {i}", "a fox sings" + " of rain" * i, "a fox") for i in range(8)),
        *(pair(f"shorter {i}", "stones", "a fox and rain" + " sings" * i) for i in range(4)),
        pair("tie", "a", "fox", tie=True),
        pair("blank", "a", " "),
    ]
    source, kept, balanced = (str(tmp_path / f"{name}.jsonl") for name in ("all", "kept", "even"))
    records.write(source, pairs)

    assert cli.main(["data", "filter", source, "--output", kept]) == 0
    assert len(records.read(kept, Pair)) == 12
    dropped = map(json.loads, (tmp_path / "kept.dropped.jsonl").read_text().splitlines())
    assert {row["id"]: row["reason"] for row in dropped} == {"tie": "tie", "blank": "empty"}

    balance = ["--tokenizer", str(tmp_path / "model"), "--output", balanced, "--buckets", "2"]
    assert cli.main(["data", "balance", source, *balance]) == 2  # there is a tie in it
    assert cli.main(["data", "balance", kept, *balance]) == 0
    sides = [pair.id.split()[0] for pair in records.read(balanced, Pair)]
    assert sides.count("longer") == sides.count("shorter") > 0
    assert "now in 50.0%" in capsys.readouterr().out


def test_configs_are_listed_with_what_they_are(capsys):
    assert cli.main(["configs"]) == 0
    for line in capsys.readouterr().out.splitlines():
        name, text = line.split(maxsplit=1)
        assert (Path(cli.__file__).parent.parent / "configs" / f"{name}.yaml").is_file()
        assert text and not text.startswith("#")
