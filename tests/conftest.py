"""Eight CPU devices, no silent promotion of dtypes or ranks, and annotations that are checked."""

import os
from collections import Counter
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest
from jaxtyping import install_import_hook

CACHE = Path(__file__).parent.parent / ".cache"

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(CACHE / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# Functions of `glm_jax`, `glm_jax.data` and `glm_jax.train` check their annotations; an int will do
# for a float, as it does for type checkers.
install_import_hook(
    "glm_jax", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: no worker is left alone with one of them at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_file():
    """Each file's programs are dropped after it: a process may map only so much compiled code."""
    yield
    jax.clear_caches()
