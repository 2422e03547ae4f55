"""Settings that are named where a run does not fit."""

import pytest

from glm_jax.configuration import load
from glm_jax.train.plan.levers import changed, levers, would_help, written
from glm_jax.train.plan.program import program
from glm_jax.train.ppo import PPOConfig
from glm_jax.train.sft import SFTConfig


def helped(config):
    return would_help(config, program(config))


def test_the_setting_of_the_largest_phase_is_named():
    """Scoring 256 rows at once is the peak: rows of the update would not help."""
    config = load(
        PPOConfig, "ppo-chatglm3-6b-v5e-64", ["ppo.scoring_rows=256", "ppo.attention=plain"]
    )
    found = helped(config)
    assert found[0]["set"] == "ppo.scoring_rows=128" and found[0]["saves_bytes"] > 2**28
    assert not any("update_rows" in lever["set"] for lever in found)
    config = load(PPOConfig, "ppo-chatglm3-6b-v5e-64", ["ppo.remat=none"])
    found = helped(config)
    assert found[0]["set"] == "ppo.remat=full"
    saved = [lever["saves_bytes"] for lever in found]
    assert saved == sorted(saved, reverse=True) and saved[-1] > 0


def test_a_setting_that_the_mesh_does_not_divide_is_not_named():
    config = load(SFTConfig, "sft-chatglm3-6b-v5e-64", ["memory.rows=8"])
    found = [lever["set"] for lever in helped(config)]
    assert "memory.rows=4" not in found and "mesh.fsdp=16" not in found  # 8 rows for 16 parts
    config = load(SFTConfig, "sft-chatglm3-6b-v5e-64")
    more = {lever["set"]: lever for lever in helped(config)}["mesh.fsdp=16"]
    assert more["chips"] == 128


@pytest.mark.parametrize("name", ["sft-chatglm3-6b-v5e-64", "ppo-chatglm3-6b-v5e-64"])
def test_all_of_them_are_written_as_the_command_line_reads_them(name):
    kind = PPOConfig if name.startswith("ppo") else SFTConfig
    config = load(kind, name)
    for values in levers(config):
        assert load(kind, name, written(values).split()) == changed(config, values)
