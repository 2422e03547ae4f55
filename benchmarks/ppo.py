"""How fast one PPO iteration is, on random models and prompts. Prints what it measured.

    python -m benchmarks.ppo [--layers 8 --d 512 ...] [--json]

The iteration is the program of every PPO run, `ppo_step`. Seconds are medians of calls that are
waited for, after one that is not counted. Phases are differences between programs: generation
alone, generation with scoring, the whole.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.roofline import decoding_bytes, iteration_flops, memory_bandwidth, product_rate
from glm_jax.config import GLMConfig
from glm_jax.decoding import row_keys
from glm_jax.model import GLM
from glm_jax.refill import rollout_in_slots
from glm_jax.sampling import Sampling
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.iteration import PPOState, init, ppo_step
from glm_jax.train.ppo.rollout import roll_out
from glm_jax.train.ppo.scores import PPOBatch
from glm_jax.train.scoring import in_dtype

# of `PPOHyperparameters`, as they are there unless they are given
SETTINGS = "rollout_rows", "refill", "scoring_rows", "update_rows", "widths", "log_prob_chunk"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {
        "layers": 8, "d": 512, "heads": 8, "kv": 2, "ffn": 1368, "vocab": 2048, "batch": 16,
        "prompt": 64, "response": 128, "minibatches": 2, "epochs": 1, "iterations": 3,
    }  # fmt: skip
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size, help=f"default {size}")
    parser.add_argument(
        "--eos-rate", type=float, default=0.0,
        help="chance that a token ends its answer; 0, the default: every answer is whole",
    )  # fmt: skip
    for name in SETTINGS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="as in PPO's settings")
    parser.add_argument("--sort-by-length", action="store_true", default=None, help="likewise")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--product-size", type=int, default=2048, help="for the machine's rate")
    parser.add_argument("--json", action="store_true", help="one object on one line, last")
    return parser.parse_args()


def problem(o: argparse.Namespace) -> tuple[PPOState, PPOBatch]:
    architecture = GLMConfig(
        vocab_size=o.vocab, hidden_size=o.d, intermediate_size=o.ffn, num_hidden_layers=o.layers,
        num_attention_heads=o.heads, num_key_value_heads=o.kv, head_dim=o.d // o.heads,
        max_position_embeddings=o.prompt + o.response,
    )  # fmt: skip
    # as many stop tokens as end an answer at that rate, all tokens being as likely
    stop_ids = tuple(range(round(o.eos_rate * o.vocab)))
    # a rate so low that every iteration draws from the same distribution, and no constant 0
    still = OptimizerConfig(learning_rate=1e-12)
    given = {name: getattr(o, name) for name in (*SETTINGS, "sort_by_length")}
    config = PPOHyperparameters(
        sampling=Sampling(max_new_tokens=o.response, stop_ids=stop_ids), compute=o.dtype,
        batch_size=o.batch, minibatches=o.minibatches, epochs=o.epochs,
        supervised_coefficient=0.0, actor=still, critic=still,
        **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip
    actor, reference, reward_model = (
        GLM(architecture, nnx.Rngs(seed), head) for seed, head in enumerate(("lm", "lm", "reward"))
    )
    if stop_ids:  # a head of zeros: every token is as likely as any other
        actor.head.set_value(jnp.zeros_like(actor.head[...]))
    prompts = np.random.default_rng(0).integers(o.vocab, size=(o.batch, o.prompt), dtype=np.int32)
    batch = PPOBatch(
        prompts, np.ones_like(prompts, bool), np.arange(o.batch, dtype=np.int32),
        np.zeros(o.batch, np.float32), None,
    )  # fmt: skip
    return init(config, actor, reference, reward_model), jax.device_put(batch)


def seconds(call: Callable[[], object], iterations: int) -> list[float]:
    taken = []
    for i in range(iterations + 1):
        start = time.perf_counter()
        jax.block_until_ready(call())
        if i:
            taken.append(time.perf_counter() - start)
    return taken


def measure(o: argparse.Namespace) -> dict:
    rate_before = product_rate(o.dtype, o.product_size)
    bandwidth = memory_bandwidth(o.dtype, o.product_size // 8)
    state, batch = problem(o)
    config, frozen, key = state.config, state.frozen, jax.random.key(0)
    state = state.replace(frozen=None)

    rows, refill = config.rollout_rows or o.batch, config.refill

    @jax.jit
    def generate(model: GLM, batch: PPOBatch):
        prompts, keys = (batch.prompts, batch.prompt_mask), row_keys(key, batch.rows)
        model = in_dtype(model, o.dtype)
        return rollout_in_slots(model, *prompts, keys, config.sampling, rows, refill)

    generate_and_score = jax.jit(partial(roll_out, key=key, config=config))
    lengths = np.asarray(generate(state.trainable.actor, batch).lengths)
    model_bytes = decoding_bytes(state.trainable.actor, o.dtype, o.prompt, lengths)
    generation = seconds(lambda: generate(state.trainable.actor, batch), o.iterations)
    rolled_out = seconds(
        lambda: generate_and_score(
            state.trainable, frozen, batch, kl_coefficient=state.kl_coefficient
        ),
        o.iterations,
    )
    start = time.perf_counter()
    program = ppo_step.lower(state, frozen, batch).compile()
    compile_seconds = time.perf_counter() - start

    drawn = []

    def iterate():
        nonlocal state
        state, _, completions = program(state, frozen, batch)
        drawn.append(completions.mask)
        return state, completions

    whole = seconds(iterate, o.iterations)
    rate = max(rate_before, product_rate(o.dtype, o.product_size))

    lengths_IxB = np.asarray(jnp.sum(jnp.stack(drawn[1:]), axis=2))
    flops = np.mean(
        [
            iteration_flops(frozen.reference.config, o.prompt, lengths_B, o.epochs)
            for lengths_B in lengths_IxB
        ]
    )
    iteration, memory = statistics.median(whole), program.memory_analysis()
    phases = [statistics.median(times) for times in (generation, rolled_out)]
    phases = np.diff([0.0, *phases, iteration]).tolist()
    return {
        "seconds_per_iteration": iteration,
        "seconds_of_each": whole,
        "response_tokens_per_second": lengths_IxB.sum(axis=1).mean() / iteration,
        "mean_response": lengths_IxB.mean(),
        "seconds_by_phase": dict(zip(("generation", "scoring", "update"), phases, strict=True)),
        "generation_tokens_per_second": float(lengths.sum() / phases[0]),
        "floor_fraction": flops / rate / iteration,
        "floor_seconds": flops / rate,
        "model_flops": flops,
        "product_flops_per_second": rate,
        "decoding_bytes": model_bytes,
        "memory_bytes_per_second": bandwidth,
        "decoding_floor_seconds": model_bytes / bandwidth,
        "compile_seconds": compile_seconds,
        "peak_bytes": _program_bytes(memory),
        "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "options": vars(o),
        "machine": {
            "device": jax.devices()[0].device_kind, "cores": os.cpu_count(),
            "python": platform.python_version(), "jax": jax.__version__,
        },
    }  # fmt: skip


def _program_bytes(memory) -> int:
    """All that the step needs while it runs: arguments, what it keeps, and its results."""
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return held + memory.temp_size_in_bytes


def main() -> None:
    o = options()
    found = measure(o)
    if o.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:30} {value:.4g}" if isinstance(value, float) else f"{name:30} {value}")


if __name__ == "__main__":
    main()
