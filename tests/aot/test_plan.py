"""Runs of real size, compiled for the slices that they are meant for: `make test-aot`."""

import dataclasses

import pytest

from glm_jax.configuration import load, parse
from glm_jax.train.plan import plan, search
from glm_jax.train.plan.program import architecture
from glm_jax.train.ppo import PPOConfig
from glm_jax.train.sft import SFTConfig

pytest.importorskip("libtpu", reason="the TPU compiler: pip install 'glm-rlhf[tpu-plan]'")
pytestmark = pytest.mark.aot

SHIPPED = {
    "ppo-chatglm3-6b-v5e-64": "v5e:8x8",
    "ppo-glm-4-9b-v6e-64": "v6e:8x8",
    "ppo-glm-4-32b-v5p-128": "v5p:4x4x4",
}


@pytest.fixture(scope="module")
def planned():
    """Each is compiled once."""
    made = {}

    def make(name):
        if name not in made:
            config = load(PPOConfig, name)
            made[name] = config, plan(config, SHIPPED[name])
        return made[name]

    return make


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_runs_fit(planned, name):
    config, found = planned(name)
    assert (config.ppo.batch_size, config.max_prompt) == (256, 512)
    assert config.ppo.sampling.max_new_tokens == 1024
    assert found["fits"] and found["hbm_used_bytes"] < found["hbm_available_bytes"]
    assert found["compile_seconds"] < 240


@pytest.mark.parametrize("name", SHIPPED)
def test_decoding_sends_nothing_but_one_tokens_activations(planned, name):
    config, found = planned(name)
    model = architecture(config.model)
    rows, tokens = 256 // config.mesh.rows, config.ppo.sampling.max_new_tokens
    one = rows * model.hidden_size * 2  # bytes in bfloat16
    sent = found["collectives"]["decoding"]
    assert all(kind["largest"] <= one for kind in sent.values())
    # that of the embedding and the sampler's come on top of the layers'
    per_layer = sum(kind["bytes"] for kind in sent.values()) / tokens / model.num_hidden_layers
    assert 2 * one <= per_layer <= 4 * one


def test_a_run_that_does_not_fit_is_said_not_to():
    config = load(PPOConfig, "ppo-glm-4-32b-v5p-128")
    config = dataclasses.replace(
        config, ppo=dataclasses.replace(config.ppo, update_rows=None, remat="none")
    )
    found = plan(config, "v5p:4x4x4")
    assert not found["fits"] and found["hbm_used_bytes"] > found["hbm_available_bytes"]
    assert found["bytes"]["parameters"] > 0
    assert "ppo.remat=full" in [lever["set"] for lever in found["would_help"]]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_estimate_is_within_15_percent(planned, name):
    _, found = planned(name)
    assert abs(found["estimated"]["hbm_used_bytes"] / found["hbm_used_bytes"] - 1) < 0.15


def test_what_a_search_finds_fits_by_the_compiler():
    """A small model on four chips, one or two minutes a compilation."""
    model = {
        "vocab_size": 8192, "hidden_size": 1024, "intermediate_size": 2816,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 128,
    }  # fmt: skip
    values = {"architecture": model, "batch_size": 64, "max_length": 512}
    found = search(parse(SFTConfig, values, "the test"), "v5e:2x2", best=2)
    rows = found["candidates"]
    assert found["fits"] and [row["compiled"] for row in rows[:3]] == [True, True, False]
    for row in rows[:2]:
        assert row["fits"] and row["hbm_used_bytes"] != row["estimated"]["hbm_used_bytes"]
    assert rows[0]["step_seconds"] <= rows[1]["step_seconds"]
