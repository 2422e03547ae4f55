"""TPU slices by name, and what Google publishes of their chips."""

import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

from glm_jax.errors import InputError

GIB = 2**30


class Chip(NamedTuple):
    """Of one device as JAX counts them. Rates: Google Cloud's pages on each TPU, 2026."""

    hbm: float  # GiB that the compiler lets programs have
    flops: float  # of bfloat16 products a second
    bandwidth: float  # bytes of HBM a second
    links: float  # bytes a second over all links to other chips of the slice
    cores: int  # by which names such as v5p-128 count
    axes: int  # of the torus

    @property
    def available(self) -> int:
        """Bytes that a program may take."""
        return int(self.hbm * GIB)


CHIPS = {
    "v5e": Chip(15.75, 197e12, 819e9, 200e9, 1, 2),
    "v5p": Chip(95.74, 459e12, 2765e9, 600e9, 2, 3),
    "v6e": Chip(31.25, 918e12, 1640e9, 448e9, 1, 2),
}

# The compiler's library is to look for no TPU on this host, and not to complain that it has none.
NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "localhost",
}  # fmt: skip


class Slice(NamedTuple):
    kind: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def name(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"


def parse(name: str) -> Slice:
    """`v5p:4x4x4`, or by its cores `v5p-128`. Raises InputError, with what would work."""
    found = re.fullmatch(r"(\w+)(?::(\d{1,3}(?:x\d{1,3})*)|-(\d{1,6}))", name)
    if not found or found[1] not in CHIPS:
        raise InputError(
            f"topology {name!r}: write a kind ({', '.join(CHIPS)}) with its shape, such as "
            f"v5p:4x4x4 or v5e:8x8, or with its cores, such as v5p-128"
        )
    kind, chip = found[1], CHIPS[found[1]]
    if found[2]:
        shape = tuple(int(n) for n in found[2].split("x"))
        if len(shape) != chip.axes:
            like = "x".join("4" * chip.axes)
            raise InputError(
                f"topology {name!r}: {kind} has {chip.axes} axes, such as {kind}:{like}"
            )
        return Slice(kind, shape)
    chips, rest = divmod(int(found[3]), chip.cores)
    if rest or not chips or chips & (chips - 1):
        raise InputError(
            f"topology {name!r}: {kind} slices have {chip.cores} cores a chip and a power of 2 of "
            f"chips; give another shape as {kind}:{'x'.join('4' * chip.axes)}"
        )
    return Slice(kind, _near_cube(chips, chip.axes))


def devices(of: Slice, slices: int = 1) -> list[Any]:
    """The devices of one slice, or of several, for the compiler, without the hardware.

    Raises InputError when libtpu is not installed, or knows no such slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("plan needs the TPU compiler: pip install 'glm-rlhf[tpu-plan]'")
    for name, value in NO_TPU_HERE.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(of.name, platform="tpu", num_slices=slices)
        return list(found.devices)
    except Exception as error:  # whatever the compiler makes of the name
        why = str(error).splitlines()[0]
        raise InputError(
            f"topology {of.name}: the TPU compiler knows no such slice: {why}"
        ) from None


def _near_cube(chips: int, axes: int) -> tuple[int, ...]:
    """A power of two as the most even shape, the larger sides last: 32 chips on 3 axes: 2x4x4."""
    power, shape = round(math.log2(chips)), []
    for left in range(axes, 0, -1):
        shape.append(2 ** (power // left))
        power -= power // left
    return tuple(sorted(shape))
