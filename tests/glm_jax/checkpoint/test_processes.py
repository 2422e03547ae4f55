"""Two real processes load one checkpoint onto one mesh."""

import socket
import subprocess
import sys

import numpy as np
import pytest

from glm_jax.checkpoint.pretrained import save_pretrained

PROGRAM = """
import os, sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), heartbeat_timeout_seconds=20)
import numpy as np
from jax.sharding import AxisType
from glm_jax import load_pretrained

read, preadv = [], os.preadv
def counted(*arguments):
    read.append(preadv(*arguments))
    return read[-1]
os.preadv = counted
mesh = jax.make_mesh((4,), ("fsdp",), (AxisType.Auto,))
model = load_pretrained(sys.argv[3], mesh=mesh)
logits = jax.jit(lambda model: model(np.arange(8)[None]).sum())(model)
print(sum(read), float(logits))
"""


@pytest.mark.slow
def test_each_process_reads_its_own_shards(tiny, tmp_path):
    """Half of the weights each: q, k, v, gate and up by columns, the others by rows."""
    model = tiny(hidden_size=64)
    save_pretrained(model, tmp_path / "model")
    size = (tmp_path / "model/model.safetensors").stat().st_size
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    (tmp_path / "program.py").write_text(PROGRAM)
    processes = [
        subprocess.Popen(
            [sys.executable, tmp_path / "program.py", address, str(i), tmp_path / "model"],
            stdout=subprocess.PIPE, text=True,
            env={"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        )
        for i in range(2)
    ]  # fmt: skip
    printed = [process.communicate(timeout=120)[0].split()[-2:] for process in processes]
    expected = float(model(np.arange(8)[None]).sum())
    for read, logits in printed:
        # biases and what is not sharded is read by both, and the header
        assert 0.45 * size < int(read) < 0.6 * size
        assert float(logits) == pytest.approx(expected, rel=1e-4)
