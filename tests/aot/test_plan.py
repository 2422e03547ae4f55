"""Runs of real size, compiled for the slices that they are meant for: `make test-aot`."""

import dataclasses
import json

import pytest

from glm_jax.checkpoint.config_files import config_json
from glm_jax.configuration import load, parse
from glm_jax.presets import PRESETS
from glm_jax.train.plan import plan, search
from glm_jax.train.plan.program import architecture
from glm_jax.train.ppo import PPOConfig
from glm_jax.train.sft import SFTConfig

pytest.importorskip("libtpu", reason="the TPU compiler: pip install 'glm-rlhf[tpu-plan]'")
pytestmark = pytest.mark.aot

SIX = "ppo-chatglm3-6b-v5e-64"
SHIPPED = {
    SIX: "v5e:8x8",
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
    config = load(SFTConfig, "sft-chatglm3-6b-v5e-64", ["memory.rows=null", "memory.remat=none"])
    found = plan(config, "v5e:8x8")
    assert not found["fits"] and found["hbm_used_bytes"] > found["hbm_available_bytes"]
    assert found["bytes"]["parameters"] > 0
    assert "memory.remat=full" in [lever["set"] for lever in found["would_help"]]


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


def test_the_layerwise_update_saves_the_gradients_of_both_models():
    """Of one micro-batch an update; in float32 they would be as large as the weights."""
    one = ["ppo.minibatches=16", "ppo.update_rows=null"]
    one += [f"ppo.{model}.max_grad_norm=null" for model in ("actor", "critic")]
    ordinary, fused = (
        plan(load(PPOConfig, SIX, [*one, f"ppo.layerwise={on}"]), SHIPPED[SIX])["bytes"]
        for on in ("false", "true")
    )
    saved = ordinary["temporaries"] - fused["temporaries"]
    assert saved >= 0.8 * ordinary["parameters"]


def test_more_layers_compile_in_the_same_time(planned, tmp_path):
    deep = dataclasses.replace(PRESETS["chatglm3-6b"], num_hidden_layers=61)
    folder = tmp_path / "deep"
    folder.mkdir()
    values = config_json(deep, "lm", "transformers", "bfloat16")
    (folder / "config.json").write_text(json.dumps(values))
    config = load(PPOConfig, SIX, [f"model={folder}", f"reward_model={folder}"])
    found = plan(config, SHIPPED[SIX])
    _, shallow = planned(SIX)
    assert found["flops"] > 2 * shallow["flops"]
    assert found["compile_seconds"] < 4 / 3 * shallow["compile_seconds"]


def test_all_options_compile_within_eight_minutes():
    options = [
        "ppo.widths=4", "ppo.sort_by_length=true", "ppo.rollout_rows=128", "ppo.refill=32",
        "ppo.truncated=bootstrap", "ppo.whiten_rewards=true", "ppo.whiten_advantages=true",
        "ppo.kl_target=10", "ppo.dual_clip=3", "ppo.entropy_coefficient=0.01",
        "ppo.samples_per_prompt=2", "ppo.batch_size=128", "ppo.sampling.repeat_ngram=8",
    ]  # fmt: skip
    found = plan(load(PPOConfig, SIX, options), SHIPPED[SIX])
    assert found["fits"] and found["compile_seconds"] < 480
