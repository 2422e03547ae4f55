"""What a step reads and sends, by hand, against the collectives of compiled programs."""

import pytest

from glm_jax.configuration import load
from glm_jax.train.plan.levers import changed
from glm_jax.train.plan.program import program
from glm_jax.train.plan.seconds import Traffic, decoding, seconds, training
from glm_jax.train.plan.sizes import sizes
from glm_jax.train.plan.slices import CHIPS
from glm_jax.train.ppo import PPOConfig
from glm_jax.train.sft import SFTConfig


def traffic(config):
    known = sizes(config, program(config))
    return decoding(config, known), training(config, known)


@pytest.mark.parametrize(
    ("kind", "name", "in_decoding", "elsewhere"),  # GB a chip and step, compiled: docs/scaling.md
    [
        (PPOConfig, "ppo-chatglm3-6b-v5e-64", 15.3, 817),
        (PPOConfig, "ppo-glm-4-9b-v6e-64", 21.7, 1404),
        (SFTConfig, "sft-chatglm3-6b-v5e-64", 0.0, 123),
        (SFTConfig, "sft-glm-4-32b-v5p-128", 0.0, 738),
    ],
)
def test_what_is_sent(kind, name, in_decoding, elsewhere):
    """The compiler sends more: it moves weights in pieces while it multiplies by them."""
    drawn, trained = traffic(load(kind, name))
    assert drawn.links / 1e9 == pytest.approx(in_decoding, rel=0.05)
    assert 0.5 * elsewhere < trained.links / 1e9 < elsewhere


def test_fewer_rows_at_a_time_gather_weights_more_often():
    config = load(SFTConfig, "sft-chatglm3-6b-v5e-64")
    _, whole = traffic(config)
    _, halves = traffic(changed(config, {"memory.rows": 8}))
    assert halves.reads == pytest.approx(2 * whole.reads)
    assert whole.links < halves.links < 2 * whole.links  # activations are as many


def test_nothing_is_sent_on_one_device():
    config = load(SFTConfig, "sft-chatglm3-6b-v5e-64", ["mesh={}"])
    assert traffic(config)[1].links == 0


def test_a_token_reads_weights_and_cache():
    """6.2 billion weights, and 1,536 tokens of 2 heads of 128, twice, in 28 layers, for 32 rows."""
    drawn, _ = traffic(load(PPOConfig, "ppo-chatglm3-6b-v5e-64"))
    cache = 32 * 1536 * 28 * 2 * 128 * 2  # one head a chip
    assert drawn.reads / 1024 == pytest.approx(6.24e9 * 2 / 8 + cache, rel=0.05)


def test_seconds_add_up():
    chip = CHIPS["v5e"]
    found = seconds(chip, 64 * 197e12, 64, Traffic(819e9, 200e9), every=10)
    assert found["step_seconds"] == pytest.approx(3)
    assert found["utilisation"] == pytest.approx(1 / 3)
    assert found["lost_to_a_preemption_seconds"] == pytest.approx(30)
