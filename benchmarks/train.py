"""How fast a model is trained on a file, from random weights. Prints what it measured.

    python -m benchmarks.train reward PAIRS [--layers 4 --d 256 ...] [--tokens FILE.npz] [--json]

The step is that of `glm-rlhf reward`, its batches are the first of a run's one epoch, and the
tokenizer is trained on the file. Steps are timed one after the other, after one of each width that
is not counted. `--tokens` writes the pairs as tokens, for `benchmarks/trl_reward.py`.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from glm_jax.config import GLMConfig
from glm_jax.data.batches import PairArrays, pair_arrays
from glm_jax.data.pair_batches import PairBatches, margins_and_weights
from glm_jax.data.records import Pair, read
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.reward_step import Ranking, step
from glm_jax.train.update import MemoryConfig, start


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["reward"])
    parser.add_argument("file", help="pairs, as JSON lines")
    sizes = {
        "layers": 4, "d": 256, "heads": 4, "kv": 2, "ffn": 688, "vocab": 4096, "batch": 16,
        "max-length": 512, "widths": 3, "steps": 20,
    }  # fmt: skip
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size, help=f"default {size}")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--tokens", help="write the pairs' tokens here, and measure all the same")
    parser.add_argument("--json", action="store_true", help="one object on one line, last")
    return parser.parse_args()


def prepared(o: argparse.Namespace) -> tuple[PairArrays, list[Pair], float]:
    """The file's pairs as tokens, those that stay, and the seconds that tokenizing took."""
    pairs = [pair for pair in read(o.file, Pair) if not pair.tie]
    texts = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    tokenizer = Tokenizer.train_bpe(texts, o.vocab)
    begun = time.perf_counter()
    arrays, _ = pair_arrays(pairs, tokenizer, o.max_length)
    seconds = time.perf_counter() - begun
    return arrays, [pairs[row] for row in arrays.rows_N], seconds


def measure(o: argparse.Namespace) -> dict:
    arrays, pairs, tokenizing = prepared(o)
    begun = time.perf_counter()
    batches = PairBatches(
        arrays, *margins_and_weights(pairs), batch=o.batch, steps=max(len(pairs) // o.batch, 1),
        widths=o.widths,
    )  # fmt: skip
    planning = time.perf_counter() - begun
    if o.tokens:
        taken = [n for i in range(o.steps) for row in batches.plan.batches[i] for n in row]
        np.savez_compressed(o.tokens, **_ragged(arrays, np.array(taken)), batch=o.batch)
    config = GLMConfig(
        vocab_size=-(-o.vocab // 8) * 8, hidden_size=o.d, intermediate_size=o.ffn,
        num_hidden_layers=o.layers, num_attention_heads=o.heads, num_key_value_heads=o.kv,
        head_dim=o.d // o.heads,
    )  # fmt: skip
    optimiser = optimizer(OptimizerConfig(learning_rate=1e-5), o.steps)
    state = start(GLM(config, nnx.Rngs(0), "reward"), optimiser)
    settings = {
        "optimiser": optimiser, "ranking": Ranking(l2=0.01), "memory": MemoryConfig(compute=o.dtype)
    }  # fmt: skip
    widths = {batches.plan.width(i): i for i in range(min(o.steps, len(batches)))}
    compiling, programs = 0.0, {}
    for width, i in widths.items():
        begun = time.perf_counter()
        programs[width] = step.lower(state, batches[i], **settings).compile()
        compiling += time.perf_counter() - begun
        state = jax.block_until_ready(programs[width](state, batches[i]))[0]
    made, tokens, seconds, cpu = range(min(o.steps, len(batches))), 0, [], time.process_time()
    for i in made:
        begun = time.perf_counter()
        state, metrics = programs[batches.plan.width(i)](state, batches[i])
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - begun)
        tokens += sum(int(batches.tokens_N[row].sum()) for row in batches.plan.batches[i])
    cpu, total = time.process_time() - cpu, sum(seconds)
    return {
        "pairs_per_second": len(made) * o.batch / total,
        "real_tokens_per_second": tokens / total,
        "seconds_of_each_step": seconds,
        "cpu_seconds": cpu,
        "tokens_per_pair": tokens / len(made) / o.batch,
        "columns_per_pair": float(batches.filled_N.mean()),
        "padding": batches.padding,
        "rows": batches.plan.rows,
        "widths": batches.plan.widths,
        "compile_seconds": compiling,
        "tokenize_seconds": tokenizing,
        "plan_seconds": planning,
        "loss": float(metrics["loss"]),
        "pairs": len(pairs),
        "options": vars(o),
        "load": os.getloadavg()[0],
        "machine": {
            "device": jax.devices()[0].device_kind, "cores": os.cpu_count(),
            "python": platform.python_version(), "jax": jax.__version__,
        },
    }  # fmt: skip


def _ragged(arrays: PairArrays, taken: np.ndarray) -> dict[str, np.ndarray]:
    """The pairs in the order in which they are taken: tokens end to end, and lengths."""
    found = {}
    for side, tokens, lengths in (("chosen", *arrays[0:2]), ("rejected", *arrays[2:4])):
        found[side] = np.concatenate([tokens[n, : lengths[n]] for n in taken])
        found[f"{side}_lengths"] = lengths[taken]
    return found


def main() -> None:
    o = options()
    if not Path(o.file).exists():
        raise SystemExit(f"{o.file}: no such file")
    found = measure(o)
    if o.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")


if __name__ == "__main__":
    main()
