"""Weak scaling on paper: a PPO run compiled for ever more chips, at a constant batch a chip.

    python -m benchmarks.weak_scaling [--config ppo-chatglm3-6b-v5e-64] [--chips 16 64 256 512]

Prints a table in Markdown of what the compiled programs compute and send; nothing is run. One
compilation takes minutes.
"""

import argparse
import dataclasses
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from glm_jax.configuration import load
from glm_jax.mesh import MeshConfig
from glm_jax.train.plan import plan
from glm_jax.train.ppo import PPOConfig

KIND = "v6e"  # on 16 chips of v5e the run does not fit
SHAPES = {16: "4x4", 64: "8x8", 128: "8x16", 256: "16x16"}


def scaled(config: PPOConfig, chips: int, base: int) -> PPOConfig:
    """The run on so many chips in place of `base`: more rows along fsdp, or data beyond 256."""
    ppo, mesh = config.ppo, config.mesh

    def rows(number: int | None) -> int | None:
        return number and number * chips // base

    fsdp = min(mesh.fsdp * chips // base, 32)
    data = chips // (fsdp * mesh.tensor)
    return dataclasses.replace(
        config,
        mesh=MeshConfig(data=data, fsdp=fsdp, tensor=mesh.tensor, slices=max(chips // 256, 1)),
        ppo=dataclasses.replace(
            ppo, batch_size=rows(ppo.batch_size), scoring_rows=rows(ppo.scoring_rows),
            update_rows=rows(ppo.update_rows),
            supervised_batch_size=rows(ppo.supervised_batch_size),
        ),
    )  # fmt: skip


def row(config: PPOConfig, chips: int, base: int) -> str:
    made = scaled(config, chips, base)
    slices = made.mesh.slices
    topology = f"{KIND}:{SHAPES[chips // slices]}"
    found = plan(made, topology)
    if not found["fits"]:
        return f"| {chips} | {slices} x {topology} | {found['mesh']} | does not fit |"
    sent = [
        sum(kind["bytes"] for kind in found["collectives"][place].values()) / 1e9
        for place in ("decoding", "elsewhere")
    ]
    cells = (
        f"{chips}", f"{slices} x {topology}", found["mesh"], f"{made.ppo.batch_size}",
        f"{found['flops'] / chips / 1e12:.0f}", f"{sent[0]:.1f}", f"{sent[1]:.0f}",
        f"{found['hbm_used_bytes'] / 2**30:.2f}", f"{found['compile_seconds']:.0f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="ppo-chatglm3-6b-v5e-64")
    parser.add_argument("--base", type=int, default=64, help="chips that the config is for")
    parser.add_argument(
        "--chips", type=int, nargs="+", choices=[16, 64, 128, 256, 512], default=[16, 64, 256, 512]
    )
    o = parser.parse_args()
    config = load(PPOConfig, o.config)
    head = (
        "chips", "slices", "mesh", "prompts", "TFLOP a chip", "GB a chip, decoding",
        "GB a chip, elsewhere", "GiB a chip", "s to compile",
    )  # fmt: skip
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for chips in o.chips:
        print(row(config, chips, o.base), flush=True)


if __name__ == "__main__":
    main()
