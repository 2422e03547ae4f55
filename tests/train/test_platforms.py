"""The TPU's library, installed for plans, on a host without a TPU."""

import glob
import importlib.util
import os
import subprocess
import sys

import pytest

from glm_jax.train import platforms

CODE = """
import sys
from glm_jax.train.cli import main
status = main(sys.argv[1:])
import jax
print(jax.devices()[0].platform)
sys.exit(status)
"""


@pytest.fixture
def host(monkeypatch):
    """host(*nodes): a host with libtpu, these device nodes, and no word on platforms."""

    def make(*nodes):
        monkeypatch.delenv("JAX_PLATFORMS", raising=False)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        found = {pattern: [pattern] for pattern in nodes}
        monkeypatch.setattr(glob, "glob", lambda pattern: found.get(pattern, []))

    return make


@pytest.mark.parametrize(
    ("nodes", "platform"),
    [
        ((), "cpu"), (("/dev/nvidia0",), "cuda,cpu"), (("/dev/accel*",), None),
        (("/dev/vfio/[0-9]*", "/dev/nvidia0"), None), (("/dev/kfd",), None),
    ],
)  # fmt: skip
def test_platforms_of_hosts(host, nodes, platform):
    host(*nodes)
    platforms.without_absent_tpu()
    assert os.environ.get("JAX_PLATFORMS") == platform


def test_what_is_set_stays(host, monkeypatch):
    host()
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    platforms.without_absent_tpu()
    assert os.environ["JAX_PLATFORMS"] == "tpu"


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None or bool(glob.glob("/dev/accel*")),
    reason="needs libtpu (pip install 'glm-rlhf[tpu-plan]') and no TPU",
)
def test_commands_are_quiet(tmp_path):
    """`configs`, and then devices: neither a word on stderr nor a TPU looked for."""
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    done = subprocess.run(
        [sys.executable, "-c", CODE, "configs"], env=environment, capture_output=True, text=True,
        cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[-1] == "cpu"
