"""Meshes and rows, ranked by the estimate."""

import pytest

from glm_jax.configuration import load, parse
from glm_jax.errors import InputError
from glm_jax.train.plan.gpus import parse as gpus
from glm_jax.train.plan.search import meshes, search, search_device
from glm_jax.train.ppo import PPOConfig
from glm_jax.train.sft import SFTConfig


def test_what_fits_comes_first_and_then_the_fastest():
    config = load(PPOConfig, "ppo-chatglm3-6b-gpu-8x80")
    found = search_device(config, "8x80GB")
    rows = found["candidates"]
    assert found["fits"] and rows[0]["fits"] and not rows[-1]["fits"]
    sure = [row for row in rows if 1.15 * row["hbm_used_bytes"] <= 80e9]
    assert rows[: len(sure)] == sure
    seconds = [row["step_seconds"] for row in sure]
    assert seconds == sorted(seconds)
    # each can be given to the run, and is the mesh that it says
    best = load(PPOConfig, "ppo-chatglm3-6b-gpu-8x80", rows[0]["set"].split())
    assert str(best.mesh) == rows[0]["mesh"] and best.mesh.devices == 8
    assert len({row["mesh"] for row in rows}) == len(rows)


def test_meshes_are_all_that_there_are():
    assert len(list(meshes(8, 1, experts=False))) == 10  # 3 + 3 + ... as exponents of 2 add up to 3
    assert len(list(meshes(8, 1, experts=True))) == 20
    assert all(mesh.data % 2 == 0 and mesh.devices == 8 for mesh in meshes(8, 2, experts=True))


def test_a_topology_that_no_mesh_suits():
    config = load(SFTConfig, "sft-chatglm3-6b-v5e-64")
    with pytest.raises(InputError, match=r"no mesh of 49 chips .*power of 2"):
        search(config, "v5e:7x7")


def test_none_fits():
    found = search_device(load(SFTConfig, "sft-chatglm3-6b-gpu-8x80"), "40GB")
    assert not found["fits"] and len(found["candidates"]) == 1


@pytest.mark.parametrize(("name", "number", "gigabytes"), [("80GB", 1, 80), ("8x141GB", 8, 141)])
def test_gpus(name, number, gigabytes):
    found = gpus(name)
    assert (found.number, found.chip.available, found.name) == (number, gigabytes * 10**9, name)


@pytest.mark.parametrize("name", ["80", "80gb", "0x80GB", "8x", "GB", "8*80GB"])
def test_devices_that_are_none(name):
    with pytest.raises(InputError, match=r"80GB.*8x80GB"):
        gpus(name)


def test_a_new_model_is_searched_by_its_architecture():
    values = {"run": "r", "data": ["d"], "tokenizer": "t", "batch_size": 8}
    found = search_device(parse(SFTConfig, values, "the test"), "4x1GB")
    assert found["fits"] and found["candidates"][0]["set"].startswith("mesh.data=")
