"""How fast, and in how much memory, a 6B checkpoint is loaded. Prints one JSON object.

    python benchmarks/loading.py [--preset chatglm3-6b] [--folder DIR] [--dtype bfloat16]

Writes about 12 GB of random shards (and removes them). Then by turns the files are read plainly
(`read`: into one buffer again and again; `keep`: into memory that stays) and loaded, each in a
process of its own and with the page cache emptied of them before. What a hypervisor keeps cannot
be emptied: look at the spread of `seconds`.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PIECE = 2**24


def write(folder: Path, preset: str, naming: str, stored: str) -> int:
    """Random shards of a preset's shape, float16 or bfloat16; returns their bytes."""
    import jax
    import numpy as np
    from flax import nnx

    from glm_jax.checkpoint.config_files import config_json
    from glm_jax.checkpoint.placement import tensors
    from glm_jax.checkpoint.safetensors_files import write_safetensors
    from glm_jax.model import GLM
    from glm_jax.presets import PRESETS

    config, rng = PRESETS[preset], np.random.default_rng(0)
    layout = tensors(nnx.eval_shape(lambda: GLM(config, nnx.Rngs(0))), naming)
    dtype = jax.numpy.dtype(stored)
    shapes = {name: jax.ShapeDtypeStruct(t.shape, dtype) for name, t in layout.items()}

    def random(name: str) -> np.ndarray:
        size = int(np.prod(shapes[name].shape))
        bits = np.frombuffer(rng.bytes(2 * size), np.uint16) & 0xBBFF  # finite in both
        return bits.view(dtype).reshape(shapes[name].shape)

    write_safetensors(folder, shapes, random, shard_bytes=2 * 10**9)
    text = json.dumps(config_json(config, "lm", naming, stored))
    (folder / "config.json").write_text(text)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def read_plainly(folder: str) -> dict:
    """Every shard from its first byte to its last into one buffer, which forgets them."""
    buffer, start = bytearray(PIECE), time.perf_counter()
    for file in sorted(Path(folder).glob("*.safetensors")):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
    return {"seconds": time.perf_counter() - start}


def read_and_keep(folder: str) -> dict:
    """Every shard into memory that stays, as a model's must."""
    start = time.perf_counter()
    kept = [file.read_bytes() for file in sorted(Path(folder).glob("*.safetensors"))]
    return {"seconds": time.perf_counter() - start, "bytes": sum(map(len, kept))}


def load(folder: str, dtype: str) -> dict:
    import jax
    import numpy as np

    from glm_jax import load_pretrained

    jax.devices()
    before, start = _peak(), time.perf_counter()
    model = jax.block_until_ready(load_pretrained(folder, dtype=dtype))
    seconds = time.perf_counter() - start
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(model))
    assert np.isfinite(np.asarray(model.norm[...], np.float32)).all()
    return {"seconds": seconds, "peak": _peak(), "before": before, "weights": weights}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(folder: Path, what: str, dtype: str) -> dict:
    """Runs this script again for one measurement, after the files left the page cache."""
    os.sync()
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    command = [sys.executable, __file__, "--only", what, "--folder", str(folder), "--dtype", dtype]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="chatglm3-6b")
    parser.add_argument("--naming", default="chatglm", choices=["chatglm", "transformers"])
    parser.add_argument("--stored", default="bfloat16", choices=["bfloat16", "float16"])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--folder", help="where to write; default: a temporary folder")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", choices=["read", "keep", "load"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only == "read":
        print(json.dumps(read_plainly(arguments.folder)))
    elif arguments.only == "keep":
        print(json.dumps(read_and_keep(arguments.folder)))
    elif arguments.only == "load":
        print(json.dumps(load(arguments.folder, arguments.dtype)))
    else:
        folder = Path(tempfile.mkdtemp(prefix="loading-", dir=arguments.folder))
        try:
            print(json.dumps(compare(folder, arguments), indent=2))
        finally:
            shutil.rmtree(folder)


def compare(folder: Path, arguments: argparse.Namespace) -> dict:
    size = write(folder, arguments.preset, arguments.naming, arguments.stored)
    runs: dict[str, list[dict]] = {"read": [], "keep": [], "load": []}
    for _ in range(arguments.repeats):
        for what in runs:
            runs[what].append(measure(folder, what, arguments.dtype))
    seconds = {what: [run["seconds"] for run in found] for what, found in runs.items()}
    return {
        "preset": arguments.preset,
        "stored": arguments.stored,
        "dtype": arguments.dtype,
        "file_gb": size / 1e9,
        "weights_gb": runs["load"][0]["weights"] / 1e9,
        "peak_gb": max(run["peak"] for run in runs["load"]) / 1e9,
        "before_gb": runs["load"][0]["before"] / 1e9,
        "seconds": seconds,
        "load_gb_per_second": size / 1e9 / min(seconds["load"]),
        "load_over_read": min(seconds["read"]) / min(seconds["load"]),
        "load_over_keep": min(seconds["keep"]) / min(seconds["load"]),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
