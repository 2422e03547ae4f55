"""The command line: quick to answer, and one clear line for bad input."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glm_jax.data import records
from glm_jax.data.proving_ground.unclear import prompts_by_quality
from glm_jax.data.records import Pair, Prompt
from glm_jax.data.splits import hold_out
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
        (["data", "filter", "nowhere.jsonl", "--output", "x.jsonl"], "nowhere.jsonl: no such file"),
        (["data", "filter", "pairs.jsonl"], "--output"),
        (["data", "filter", "pairs.jsonl", "--output", "x.jsonl"], "pairs.jsonl:2: "),
        (["data", "filter", ".", "--output", "x.jsonl"], "."),
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


@pytest.mark.parametrize("weight", [0.0, -1.0, 1e300, 1e-300])
def test_a_weight_that_would_teach_nothing_or_break_sums_is_refused(tmp_path, capsys, weight):
    source, output = str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")
    made = [pair(f"p{i}", "a fox", "fox" * (1 + i % 4)) for i in range(20)]
    records.write(source, [*made, pair("odd", "a fox", "a", weight=weight)])
    command = ["data", "balance", source, "--output", output, "--by", "characters"]
    assert cli.main([*command, "--mode", "weight"]) == 2
    assert f"{source}:21: field 'weight': input should be" in capsys.readouterr().err
    assert not Path(output).exists()
    assert cli.main(["data", "check", source]) == 2


def test_two_pairs_of_one_id_are_named_with_their_file(tmp_path, capsys):
    source, output = str(tmp_path / "in.jsonl"), str(tmp_path / "out")
    records.write(source, [pair(one, "a fox", "a") for one in ("x", "same", "y", "same")])
    for command in (
        ["balance", source, "--output", f"{output}.jsonl", "--by", "characters"],
        ["report", source, "--output", output],
    ):
        assert cli.main(["data", *command]) == 2
        told = capsys.readouterr().err
        assert f"{source}: two pairs have the id 'same'" in told and "data filter" in told
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_split_and_held_out_files_share_no_prompt(tmp_path, capsys):
    source, train, test, kept = (str(tmp_path / f"{name}.jsonl") for name in ("all", "a", "b", "c"))
    asks = [[{"role": "user", "content": f"question {i // 2}"}] for i in range(400)]
    records.write(
        source,
        [Pair(id=f"{i}", prompt=ask, chosen="a", rejected=f"b{i}") for i, ask in enumerate(asks)],
    )
    split = ["data", "split", source, "--train", train, "--held-out", test, "--share"]
    assert cli.main([*split, "2"]) == 2
    assert cli.main([*split, "0.3"]) == 0
    sides = [records.read(file, Pair) for file in (train, test)]
    prompts = [{pair.prompt[0]["content"] for pair in side} for side in sides]
    assert not prompts[0] & prompts[1] and sum(map(len, sides)) == 400
    assert 0.2 < len(prompts[1]) / 200 < 0.4
    assert sides == list(hold_out(records.read(source, Pair), 0.3, 0))
    assert cli.main(["data", "filter", source, "--output", kept, "--held-out", test]) == 0
    assert records.read(kept, Pair) == sides[0]


def test_what_is_wrong_with_the_settings_is_said_before_the_file_is_read(tmp_path, capsys):
    file, output = str(tmp_path / "pairs.jsonl"), str(tmp_path / "x.jsonl")
    Path(file).write_text("no JSON")
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    for command, message in [
        (["balance", file, "--output", output], "--tokenizer MODEL"),
        (["balance", file, "--output", output, "--by", "characters", "--buckets", "0"], "got 0"),
        (["balance", file, "--output", file, "--by", "characters"], "a file each"),
        (["balance", file, "--output", output, "--by", "characters", "--edges", "5,5"], "edges"),
        (["filter", file, "--output", output, "--min-agreement", "2"], "min_agreement"),
        (["filter", file, "--output", output, "--max-tokens", "9"], "--tokenizer"),
        (["filter", file, "--output", output, "--max-pairs-per-prompt", "0"], "at least 1"),
        (["filter", file, "--output", output, "--dropped", output], "a file each"),
        (["filter", file, "--output", output, "--held-out", output], "a file each"),
        (["split", file, "--train", output, "--held-out", output], "a file each"),
        (["filter", file, "--output", f"{output}.parquet"], "is written as .jsonl"),
        (["filter", file, "--output", output, "--dropped", str(folder)], "a folder lies there"),
        (["filter", file, "--output", output, "--min-ms-per-char", "nan"], "min_ms_per_char"),
    ]:
        assert cli.main(["data", *command]) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name, "pairs.jsonl"]


def test_configs_are_listed_with_what_they_are(capsys):
    assert cli.main(["configs"]) == 0
    for line in capsys.readouterr().out.splitlines():
        name, text = line.split(maxsplit=1)
        assert (Path(cli.__file__).parent.parent / "configs" / f"{name}.yaml").is_file()
        assert text and not text.startswith("#")


def test_prompts_are_filtered_by_a_classifier_that_was_trained_here(tmp_path, capsys):
    labelled, given, kept = (str(tmp_path / f"{name}.jsonl") for name in ("l", "given", "kept"))
    records.write(labelled, prompts_by_quality(200, 0, "first"))
    unlabelled = [
        Prompt(id=p.id, prompt=p.prompt, category=f"c{i % 8 // 4}")
        for i, p in enumerate(prompts_by_quality(80, 0, "second"))
    ]
    records.write(given, unlabelled)
    classifier = str(tmp_path / "quality")
    assert cli.main(["data", "learn-quality", given, "--output", classifier]) == 2
    assert "given.jsonl: field 'quality' is missing in the prompt" in capsys.readouterr().err
    assert cli.main(["data", "learn-quality", labelled, "--output", classifier]) == 0
    assert "right of those not trained on" in capsys.readouterr().out
    command = ["data", "prompts", given, "--quality", classifier, "--output", kept, "--n", "10"]
    assert cli.main(command) == 0
    stays = records.read(kept, Prompt)
    assert len(stays) == 10 and all(p.id.startswith("clear") for p in stays)
    assert [p.category for p in stays].count("c0") == 5
    dropped = (tmp_path / "kept.dropped.jsonl").read_text()
    rows = [json.loads(line) for line in dropped.splitlines()]
    assert len(rows) == 70 and {"surplus", "unanswerable"} <= {row["reason"] for row in rows}
    assert cli.main([*command, "--dropped", kept]) == 2
    before = Path(given).read_bytes()
    for output, message in [
        (given, "a file each"),
        (str(tmp_path / "kept.parquet"), "is written as .jsonl"),
        (str(tmp_path / "quality.jsonl"), "a folder lies there"),
    ]:
        (tmp_path / "quality.jsonl").mkdir(exist_ok=True)
        assert cli.main(["data", "prompts", given, "--output", output]) == 2
        assert message in capsys.readouterr().err
    assert Path(given).read_bytes() == before and not (tmp_path / "kept.parquet").exists()


def test_a_classifier_needs_two_kinds_of_prompts(tmp_path, capsys):
    labelled, folder = str(tmp_path / "labelled.jsonl"), tmp_path / "quality"
    alike = [p for p in prompts_by_quality(200, 0, "first") if p.quality == "clear"]
    records.write(labelled, alike)
    assert cli.main(["data", "learn-quality", labelled, "--output", str(folder)]) == 2
    told = capsys.readouterr().err
    assert f"{labelled}: all prompts are labelled 'clear'; at least two kinds" in told
    assert not folder.exists()
