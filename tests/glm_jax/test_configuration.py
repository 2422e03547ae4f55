"""Configuration: round trip, overrides, and errors that a person can act on."""

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from glm_jax.configuration import configuration, load, parse, save, shipped, to_dict
from glm_jax.errors import InputError


@configuration
class Optimiser:
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)


@configuration
class Run:
    steps: int
    name: str = "1e-4"
    kind: Literal["ppo", "dpo"] = "ppo"
    warm_up: int | None = None
    optimiser: Optimiser = Optimiser()
    reference: Optimiser | None = None

    def __post_init__(self):
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, got {self.steps}")


def written(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(text)
    return file


def test_round_trip_is_exact(tmp_path):
    run = Run(
        steps=3,
        warm_up=0,
        optimiser=Optimiser(learning_rate=1e-22, betas=(1 / 3, 1e300)),
        reference=Optimiser(),
    )
    for name in [
        "1e-4",
        "null",
        "no",
        "12",
        "true",
        "2020-01-01",
        "1:30",
        "",
        "中文: #x",
        "\t\n",
        "~",
    ]:
        run = dataclasses.replace(run, name=name)
        save(run, tmp_path / "run.yaml")
        assert load(Run, tmp_path / "run.yaml") == run
    assert [file.name for file in tmp_path.iterdir()] == ["run.yaml"]
    assert parse(Run, to_dict(run), "here") == run


def test_overrides_reach_nested_keys_and_keep_their_types(tmp_path):
    file = written(tmp_path, "steps: 3\nreference: null\n")
    run = load(
        Run,
        file,
        [
            "optimiser.learning_rate=1e-4",
            "optimiser.betas=[0, 1]",
            "reference.learning_rate=2",
            "name='a: b=c'",
            "steps=4",
            "warm_up=null",
        ],
    )
    assert run == Run(
        steps=4,
        name="a: b=c",
        optimiser=Optimiser(learning_rate=1e-4, betas=(0.0, 1.0)),
        reference=Optimiser(learning_rate=2.0),
    )
    assert isinstance(run.reference.learning_rate, float)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("steps: 3\nstep: 4", [], ":2: unknown key 'step'; did you mean 'steps'?"),
        (
            "steps: 3\noptimiser:\n  learning_rat: 4",
            [],
            ":3: unknown key 'optimiser.learning_rat'; did you mean 'optimiser.learning_rate'?",
        ),
        ("learning_rate: 4", [], ":1: unknown key 'learning_rate'; did you mean '"),
        ("steps: 3\noptimiser: 4", [], ":2: 'optimiser' should be an object, got 4"),
        ("steps: '3'", [], ":1: 'steps' should be a valid integer, got '3'"),
        ("steps: true", [], ":1: 'steps' should be a valid integer, got True"),
        ("steps: 3\nkind: sft", [], ":2: 'kind' should be 'ppo' or 'dpo', got 'sft'"),
        ("steps: 3\noptimiser:\n  betas: [1, x]", [], ":3: 'optimiser.betas.1' should be a valid"),
        ("name: x", [], "run.yaml: the key 'steps' is missing"),
        ("", [], "run.yaml: the key 'steps' is missing"),
        ("steps: 0", [], "run.yaml: steps must be at least 1, got 0"),
        ("steps: 3\nsteps: 3", [], ":2: the key 'steps' is given twice"),
        ("steps: 3\n  x: [", [], ":2: not valid YAML"),
        ("steps: 3\nname: !!python/name:os.system x", [], ":2: not valid YAML"),
        ("- 3", [], ":1: expected keys and values"),
        ("steps: 3", ["kind=sft"], "override 'kind=sft': 'kind' should be 'ppo' or 'dpo'"),
        (
            "steps: 3",
            ["optimizer.betas=1"],
            "override 'optimizer.betas=1': unknown key 'optimizer'",
        ),
        ("steps: 3", ["steps"], "override 'steps': expected 'key.path=value'"),
        ("steps: 3", ["steps=[1"], "override 'steps=[1'"),
    ],
)
def test_errors_say_what_and_where(tmp_path, text, overrides, message):
    with pytest.raises(InputError) as error:
        load(Run, written(tmp_path, text), overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_shipped_configuration_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="nowhere: no such configuration"):
        load(Run, "nowhere")
    with pytest.raises(InputError, match="no such configuration"):
        load(Run, tmp_path / "quickstart.yaml")
    for name in shipped():
        for path in (name, f"{name}.yaml", f"configs/{name}.yaml"):
            with pytest.raises(InputError, match=r"unknown key|is missing"):
                load(Run, path)
