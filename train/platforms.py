"""Which of JAX's platforms a command may start. No JAX in here: it is asked before JAX starts."""

import glob
import importlib.util
import os

TPU = "/dev/accel*", "/dev/vfio/[0-9]*"
NVIDIA = "/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"
AMD = ("/dev/kfd",)


def without_absent_tpu() -> None:
    """Keeps JAX from starting the TPU's library on a host without a TPU, where it looks for one on
    the network and prints errors. It is there so that plans can be compiled.

    Whoever sets JAX_PLATFORMS is left alone.
    """
    if "JAX_PLATFORMS" in os.environ or importlib.util.find_spec("libtpu") is None:
        return
    if _there(TPU) or _there(AMD):  # of the latter the platform's name depends on the plugin
        return
    cuda = _there(NVIDIA) and importlib.util.find_spec("jax_plugins") is not None
    os.environ["JAX_PLATFORMS"] = "cuda,cpu" if cuda else "cpu"


def _there(patterns: tuple[str, ...]) -> bool:
    return any(glob.glob(pattern) for pattern in patterns)
