"""The commands `glm-rlhf collect ...`: the whole way from sampled answers to a reward model."""

import contextlib
import io
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from flax import nnx

from benchmarks.collection.server import Server, free_port, invited, samples
from glm_jax.checkpoint.pretrained import save_pretrained
from glm_jax.config import GLMConfig
from glm_jax.data import records
from glm_jax.data.collection import Refused, people, store
from glm_jax.data.collection.simulation.simulate import simulate
from glm_jax.data.collection.tables import Pair, Person
from glm_jax.data.proving_ground import world
from glm_jax.data.proving_ground.task import Task
from glm_jax.data.proving_ground.utility import utility
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import cli
from glm_jax.train.run_folder import read_rows


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A model of the proving ground's words that has learned nothing yet."""
    folder, tokenizer = tmp_path_factory.mktemp("model"), Tokenizer.word_level(world.vocabulary())
    config = GLMConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    save_pretrained(GLM(config, nnx.Rngs(0)), folder, tokenizer)
    return str(folder)


def run(*command: object) -> None:
    assert cli.main([str(part) for part in command]) == 0


def test_from_samples_to_a_reward_model(model, tmp_path, capsys):
    db, shown = str(tmp_path / "preferences.db"), tmp_path / "samples.jsonl"
    records.write(shown, samples(80, 3, 0))
    with Server(db, str(shown)) as server:
        capsys.readouterr()
        run("collect", "invite", "--db", db, "--url", server.url, *"abcdefa")
        links = tmp_path / "links.txt"
        links.write_text(capsys.readouterr().out)
        run("collect", "simulate", shown, "--links", links, "--length-bias", "0")
    run("collect", "statistics", "--db", db, "--json")
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    progress = figures["progress"]
    assert progress["missing"] == progress["senior"] == progress["stuck"], "no seniors were invited"
    assert figures["agreement"]["alpha"]["value"] > 0.2
    run("collect", "statistics", "--db", db)
    lines = capsys.readouterr().out.splitlines()
    done = f"{progress['done']:,} of {progress['pairs']:,} done"
    assert lines[0].split()[0] == "pairs" and done in lines[0]
    assert f"{figures['throughput']['all']:,}; in the last hour" in lines[1]
    judged = [line.split()[1] for line in lines[-len("abcdef") :]]
    assert judged == [str(each["judged"]) for each in figures["annotators"]]

    labels, kept = tmp_path / "labels.jsonl", tmp_path / "kept.jsonl"
    run("collect", "export", "--db", db, "--output", labels, "--kind", "raw")
    run("data", "filter", labels, "--output", kept)
    pairs = records.read(kept, records.Pair)
    right = Counter(
        utility(task, pair.chosen, True) > utility(task, pair.rejected, True)
        for pair in pairs
        if (task := Task.from_record(pair.task))
    )
    assert right[True] / right.total() > 0.7
    run_folder = tmp_path / "reward"
    (tmp_path / "reward.yaml").write_text(
        f"run: {run_folder}\nmodel: {model}\npairs: {kept}\nheldout: 0.2\nmax_length: 64\n"
        "batch_size: 16\nepochs: 6\nwidths: 1\noptimizer: {learning_rate: 1.0e-2}\n"
    )
    run("reward", tmp_path / "reward.yaml")
    assert (run_folder / "model" / "config.json").is_file()
    losses = [row["loss"] for row in read_rows(run_folder / "metrics.jsonl")]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_answers_are_sampled_while_people_wait(model, tmp_path):
    """Every prompt gets its answers once, also when the server is started again in between."""
    db, prompts = str(tmp_path / "preferences.db"), tmp_path / "prompts.jsonl"
    asked = world.prompts("pairs", 12, 0)
    records.write(prompts, asked)
    arguments = "--model", model, "--prompts", str(prompts), "--n", "2", "--max-new-tokens", "8"
    known = [
        records.Sample(
            id=p.id, sample=0, prompt=p.prompt, text="", tokens=[], log_probs=[], finish="stop",
            task=p.task,
        )
        for p in asked
    ]  # fmt: skip
    done = 0
    for _ in range(2):
        with Server(db, *arguments) as server:
            (link,) = invited(db, server.url, 1)
            done += len(simulate(known, [link], pairs=5))
    with Server(db, *arguments) as server:
        (link,) = invited(db, server.url, 1)
        done += len(simulate(known, [link]))
    with store.reading(store.open_store(db)) as session:
        by_prompt = Counter(session.query(Pair.prompt_id).all())
    # a model that draws the same twice leaves nothing to compare
    assert len(by_prompt) > 8 and set(by_prompt.values()) == {1}
    assert done >= len(by_prompt)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["serve"], "--db"),
        (["serve", "nowhere.jsonl", "--db", "new.db"], "nowhere.jsonl: no such file"),
        (["serve", "wrong.jsonl", "--db", "new.db"], "wrong.jsonl:1: "),
        (["serve", "--db", "new.db", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["serve", "--db", "new.db", "--model", "nowhere"], "--prompts"),
        (
            ["serve", "--db", "new.db", "--url", "a.example"],
            "--url a.example: expected one like http",
        ),
        (["serve", "--db", "new.db", "--url", "http://a/b"], "nothing after"),
        (["serve", "--db", "new.db", "--url", "https://"], "nothing after"),
        (["serve", "--db", "new.db", "--password-file", "nowhere"], "nowhere"),
        (["serve", "--db", "postgresql://nobody@127.0.0.1:1/none"], "127.0.0.1"),
        (["password", "--db", "nowhere.db"], "nowhere.db: no such database"),
        (["invite", "--db", "nowhere.db", "anna"], "nowhere.db: no such database"),
        (["export", "--db", "nowhere.db", "--output", "x.jsonl"], "nowhere.db: no such database"),
        (
            ["export", "--db", "x.db", "--output", "./x.db"],
            "./x.db: what is read and",
        ),
        (["serve", "--db", "new.db", "--port", "99999"], "--port 99999: expected 1 to 65535"),
        (["serve", "--db", "new.db", "--port", "0"], "--port 0: expected 1 to 65535"),
        (["statistics", "--db", "nowhere.db"], "nowhere.db: no such database"),
        (["simulate", "wrong.jsonl", "--links", "nowhere.txt"], "nowhere.txt"),
        (["simulate", "wrong.jsonl", "--links", "empty.txt"], "empty.txt: no personal links"),
        (["simulate", "wrong.jsonl", "--links", "wrong.jsonl"], "wrong.jsonl:1: no personal link"),
        (
            ["serve", "--gold", "sample.jsonl", "--db", "new.db"],
            "': gold needs pairs with",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLM_RLHF_PASSWORD", "a password for the tests")
    Path("wrong.jsonl").write_text('{"prompt": 1}\n')
    Path("empty.txt").write_text("\n")
    records.write("sample.jsonl", [next(samples(1, 1, 0))])
    try:
        status = cli.main(["collect", *command])
    except SystemExit as error:
        status = error.code
    told = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and len(told) == 1 and message in told[0]


def test_the_url_is_what_links_begin_with(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_RLHF_PASSWORD", "a password for the tests")
    served = []
    monkeypatch.setattr("uvicorn.Config", lambda app, **_: served.append(app))
    monkeypatch.setattr("uvicorn.Server", lambda _: SimpleNamespace(run=lambda **_: None))
    for url in ([], ["--url", "https://a.example/"]):
        run("collect", "serve", "--db", tmp_path / "new.db", "--port", free_port(), *url)
    assert [app.app.state.url for app in served] == [None, "https://a.example"]


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert cli.main(["collect", "statistics", "--db", "nowhere.db"]) == 2
    assert "pip install 'glm-rlhf[collect]'" in capsys.readouterr().err


def test_passwords_are_changed_and_administrators_added(tmp_path, capsys):
    db, file = str(tmp_path / "preferences.db"), tmp_path / "password"
    engine = store.open_store(db)
    with store.writing(engine) as session:
        people.invite(session, "anna", "annotator", 0.0)

    def roles(given: str) -> dict[str, str]:
        found = {}
        for name in ("administrator", "lead"):
            with store.reading(engine) as session, contextlib.suppress(Refused):
                found[name] = people.verified(session, name, given).role
        return found

    for name, given in (
        ([], "the first of all"),
        ([], "the second one"),
        (["lead"], "yet another one"),
    ):
        file.write_text(f"{given}\n")
        run("collect", "password", "--db", db, *name, "--password-file", file)
    assert roles("the first of all") == {}
    assert roles("the second one") == {"administrator": "administrator"}
    assert roles("yet another one") == {"lead": "administrator"}
    for name, message in (("anna", "as annotator"), ("x" * 65, "64 characters")):
        assert (
            cli.main(["collect", "password", "--db", db, name, "--password-file", str(file)]) == 2
        )
        assert message in capsys.readouterr().err
    file.write_text("short")
    assert cli.main(["collect", "password", "--db", db, "new", "--password-file", str(file)]) == 2
    with store.reading(engine) as session:
        names = {person.name for person in session.query(Person)}
    assert names == {"anna", "administrator", "lead"}, "nobody is made without a password"
    engine.dispose()


def test_the_first_start_needs_a_password(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("GLM_RLHF_PASSWORD", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert cli.main(["collect", "serve", "--db", str(tmp_path / "new.db")]) == 2
    assert "--password-file" in capsys.readouterr().err
