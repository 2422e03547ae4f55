"""What a run takes, by hand, against what the TPU compiler made of it."""

import pytest

from glm_jax.configuration import load
from glm_jax.mesh import MeshConfig
from glm_jax.presets import PRESETS
from glm_jax.train.dpo import DPOConfig
from glm_jax.train.plan.activations import Text, cache
from glm_jax.train.plan.estimate import estimate
from glm_jax.train.plan.levers import changed
from glm_jax.train.plan.plan import plan_device
from glm_jax.train.plan.program import program
from glm_jax.train.plan.sizes import sizes
from glm_jax.train.ppo import PPOConfig
from glm_jax.train.reward import RewardConfig
from glm_jax.train.sft import SFTConfig

KINDS = {"ppo": PPOConfig, "sft": SFTConfig, "reward": RewardConfig, "dpo": DPOConfig}

WHOLE = {"batch_size": 16, "memory.rows": None, "optimizer.max_grad_norm": None}
# GiB a chip, `hbm_used_bytes` of `glm-rlhf plan NAME --topology ...` for 64 chips of the slice that
# the name says, with the shipped values and those beside it; whole logits of supervised data, SFT
# and DPO, plain attention; jax 0.10.2
COMPILED = [
    ("sft-chatglm3-6b-v5e-64", {}, 3.28),
    ("reward-chatglm3-6b-v5e-64", {}, 4.39),
    ("reward-chatglm3-6b-v5e-64", {"memory.rows": 64}, 12.00),
    ("dpo-chatglm3-6b-v5e-64", {}, 5.25),
    ("ppo-chatglm3-6b-v5e-64", {}, 6.04),
    ("sft-glm-4-9b-v6e-64", {}, 4.70),
    ("reward-glm-4-32b-v5p-128", {}, 16.68),
    # these without the program itself, some 0.05 GiB, or 0.2 with PPO
    ("ppo-glm-4-9b-v6e-64", {}, 8.60),
    ("ppo-glm-4-32b-v5p-128", {}, 30.86),
    ("sft-glm-4-32b-v5p-128", {}, 13.46),
    ("dpo-glm-4-32b-v5p-128", {}, 20.18),
    ("reward-glm-4-9b-v6e-64", {}, 5.94),
    ("dpo-glm-4-9b-v6e-64", {}, 7.90),
    ("sft-chatglm3-6b-v5e-64", {"memory.rows": 8, "memory.remat": "none"}, 11.23),
    ("sft-chatglm3-6b-v5e-64", {"memory.rows": 8, "memory.remat": "products"}, 3.27),
    ("sft-chatglm3-6b-v5e-64", WHOLE, 2.84),
    ("sft-chatglm3-6b-v5e-64", WHOLE | {"memory.layerwise": True}, 2.41),
]


def shipped(name, **values):
    config = load(KINDS[name.partition("-")[0]], name)
    return changed(config, values) if values else config


def estimated(config):
    return estimate(config, sizes(config, program(config)))


@pytest.mark.parametrize(("name", "values", "gib"), COMPILED)
def test_within_10_percent_of_the_compiler(name, values, gib):
    part = "ppo" if name.startswith("ppo") else "memory"
    config = changed(shipped(name), {f"{part}.attention": "plain"} | values)
    found = estimated(config).used / 2**30
    assert abs(found / gib - 1) < 0.1, found


def test_a_layer_by_hand():
    """ChatGLM3-6B, 16 texts of 2,048 tokens on 8 x 8: 2 rows a chip, 4 heads, 1,712 of the ffn."""
    text = Text(PRESETS["chatglm3-6b"], MeshConfig(fsdp=8, tensor=8), 16, 2048, 2)
    stream, scores, ffn = 2 * 2048 * 4096 * 2, 2 * 4 * 2048**2 * 2, 2 * 2048 * 1712 * 2
    assert (text.stream, text.scores, text.ffn) == (stream, scores, ffn)
    assert text.backward == 6 * stream + 2.5 * scores + 3 * ffn
    assert text.kept("full") == 28 * stream
    assert text.kept("full") < text.kept("products") < text.kept("none")
    assert text.head(128) == 2 * 128 * 8128 * (2 + 4)
    # one of the two key/value heads is on each chip
    assert cache(text) == 28 * 2 * (2 * 2048 * 128 * 2)


def test_experts_hold_what_each_token_goes_through():
    text = Text(PRESETS["glm-4.5-air"], MeshConfig(tensor=2), 1, 10, 2)
    assert text.ffn == 10 * 2 * (9 * 1408 / 2 + 8 * 4096)


def test_the_layer_wise_update_has_no_gradient_tree():
    plain = {"ppo.update_rows": None, "ppo.minibatches": 16}
    plain |= {"ppo.actor.max_grad_norm": None, "ppo.critic.max_grad_norm": None}
    config = changed(shipped("ppo-chatglm3-6b-v5e-64"), plain)
    ordinary = estimated(config).phases["update"].gradients
    fused = estimated(changed(config, {"ppo.layerwise": True})).phases
    assert fused["update of the actor"].gradients < 0.2 * ordinary
    assert fused["update of the critic"].activations > 0


def test_float32_needs_no_copy_of_the_weights():
    config = changed(shipped("sft-chatglm3-6b-v5e-64"), {"memory.compute": "float32"})
    assert estimated(config).phases["update"].weights_in_compute_dtype == 0


@pytest.mark.parametrize("stage", KINDS)
def test_runs_meant_for_gpus_fit_them(stage):
    found = plan_device(shipped(f"{stage}-chatglm3-6b-gpu-8x80"), "8x80GB")
    assert found["fits"] and found["label"] == "estimated from declared arrays, not compiled"
    assert 1.15 * found["hbm_used_bytes"] < found["hbm_available_bytes"] == 80e9
    assert sum(found["bytes"].values()) == found["hbm_used_bytes"]
    assert found["flops"] > 1e16 and found["estimate"]["step_seconds"] > 1
