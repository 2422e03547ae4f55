"""What a run would compile, from its configuration alone."""

import importlib
from pathlib import Path

import jax
import pytest

from glm_jax.checkpoint.pretrained import save_pretrained
from glm_jax.configuration import load, parse, shipped
from glm_jax.errors import InputError
from glm_jax.mesh import MeshConfig, abstract_mesh, check, check_rows, make_mesh, on_mesh
from glm_jax.presets import PRESETS
from glm_jax.train.cli import STAGES, TRAINING
from glm_jax.train.plan.compiled import compiled
from glm_jax.train.plan.hlo import collectives
from glm_jax.train.plan.levers import changed
from glm_jax.train.plan.program import architecture, memory_of, on_accelerator, program
from glm_jax.train.plan.sizes import bytes_a_chip, sizes
from glm_jax.train.ppo import PPOConfig
from glm_jax.train.sft import SFTConfig

MEANT = [name for name in shipped() if name.partition("-")[0] in TRAINING]


def configured(stage):
    file, name = STAGES[stage][0].split(".")
    return getattr(importlib.import_module(f"glm_jax.train.{file}"), name)


@pytest.mark.parametrize("name", MEANT)
def test_shipped_runs_divide_over_their_slices(name):
    config = load(configured(name.partition("-")[0]), name)
    planned = program(config)
    check(config.mesh, planned.models, 8 if "gpu-8x80" in name else 64)
    check_rows(config.mesh, planned.rows)


def test_a_folder_that_is_not_there_is_known_by_its_name(tiny, tmp_path):
    assert architecture("models/chatglm3-6b-32k-sft") == PRESETS["chatglm3-6b-32k"]
    save_pretrained(tiny(num_hidden_layers=3), tmp_path / "glm-4-9b")
    assert architecture(str(tmp_path / "glm-4-9b")).num_hidden_layers == 3
    with pytest.raises(InputError, match="does not begin with that of a released model"):
        architecture("models/gpt")


@pytest.fixture
def on_eight(tiny, tmp_path):
    """A PPO run on eight CPU devices, for which JAX compiles as it does for a slice."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    save_pretrained(tiny(**heads), tmp_path / "sft")
    save_pretrained(tiny("reward", **heads), tmp_path / "rm")

    def make(**ppo):
        values = {
            "model": f"{tmp_path}/sft", "reward_model": f"{tmp_path}/rm", "max_prompt": 4,
            "mesh": {"fsdp": 4, "tensor": 2},
            "ppo": {"batch_size": 16, "minibatches": 2, "epochs": 1, "supervised_coefficient": 0.0,
                    "sampling": {"max_new_tokens": 4}, **ppo},
        }  # fmt: skip
        config = parse(PPOConfig, values, "the test")
        planned = program(config)
        mesh = make_mesh(config.mesh, planned.models)
        with on_mesh(mesh):
            return config, planned, planned.trace(mesh).lower().compile()

    return make


def test_the_bytes_of_a_program_are_those_of_its_arrays(tiny, on_eight):
    config, planned, compiled = on_eight()
    held = compiled.memory_analysis().argument_size_in_bytes
    known = sizes(config, planned).declared
    assert sum(known.values()) < held < sum(known.values()) + 2000  # prompts, key, counts, too
    model = tiny(num_attention_heads=4, num_key_value_heads=2)
    assert known["frozen"] < sum(x.nbytes for x in jax.tree.leaves(model))  # of two models


@pytest.mark.parametrize("ppo, times", [
    ({}, 4), ({"rollout_rows": 8}, 2 * 4), ({"rollout_rows": 8, "refill": 4}, 4 * 2),
])  # fmt: skip
def test_decoding_is_seen_however_prompts_take_their_turns(on_eight, ppo, times):
    """Four tokens of all rows at once, of two sets, or as slots of 8 take the next 4 prompts."""
    _, planned, compiled = on_eight(**ppo)
    sent = [c for c in collectives(compiled.as_text(), planned.rounds) if c.decoding]
    sums = {c.times for c in sent if c.kind == "all-reduce" and c.result != "pred[]"}
    assert sums == {times}


def test_a_reward_function_takes_no_model(tiny, tmp_path):
    save_pretrained(tiny(), tmp_path / "sft")
    values = {
        "model": f"{tmp_path}/sft", "reward_function": {"function": "rewards.py:score"},
        "max_prompt": 4,
        "ppo": {"batch_size": 8, "minibatches": 2, "sampling": {"max_new_tokens": 4}},
    }  # fmt: skip
    planned = program(parse(PPOConfig, values, "the test"))
    whole = sum(x.nbytes for x in jax.tree.leaves(tiny()))
    mesh = abstract_mesh(MeshConfig(), planned.models)
    assert bytes_a_chip(planned.declared["frozen"], mesh) == whole  # the reference alone
    assert "dot_general" in str(planned.trace(None).jaxpr)
    with pytest.raises(InputError, match="one source of rewards"):
        program(parse(PPOConfig, values | {"reward_model": "models/glm-4-9b"}, "the test"))


@pytest.mark.parametrize("name", MEANT)
def test_where_no_dtype_is_given_it_is_an_accelerators(name):
    config = load(configured(name.partition("-")[0]), name)
    assert on_accelerator(config) == config
    open_ = changed(config, {f"{'ppo' if 'ppo' in name else 'memory'}.compute": None})
    assert memory_of(open_).compute_dtype == "float32"  # this host's
    assert on_accelerator(open_) == config


def test_a_plan_leaves_nothing_in_jaxs_cache(tiny, tmp_path):
    """A program for chips that are not here is written there, and fails when it is read."""
    save_pretrained(tiny(), tmp_path / "sft")
    values = {"model": f"{tmp_path}/sft", "max_length": 23, "batch_size": 8, "steps": 7}
    planned = program(parse(SFTConfig, values, "the test"))
    folder = Path(jax.config.jax_compilation_cache_dir)
    before = set(folder.glob("jit_step-*"))
    mesh = make_mesh(MeshConfig(fsdp=8), planned.models)
    least = "jax_persistent_cache_min_compile_time_secs"
    jax.config.update(least, 0.0)  # everything is kept
    try:
        assert compiled(planned, mesh, {}, 2**30)["fits"]
        assert set(folder.glob("jit_step-*")) == before
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.0
    finally:
        jax.config.update(least, 0.5)
