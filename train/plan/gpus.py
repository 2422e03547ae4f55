"""GPUs by their number and memory: `80GB`, or `8x80GB` for a host of eight."""

import re
from typing import NamedTuple

from glm_jax.errors import InputError
from glm_jax.train.plan.slices import Chip

RATES = "A100"  # whose published rates stand for those of any GPU


class GPUs(NamedTuple):
    number: int
    chip: Chip

    @property
    def name(self) -> str:
        each = f"{self.chip.available / 1e9:.0f}GB"
        return f"{self.number}x{each}" if self.number > 1 else each


def parse(name: str) -> GPUs:
    """`80GB`, `8x80GB`. Raises InputError, with what would work."""
    found = re.fullmatch(r"(?:([1-9]\d{0,3})x)?([1-9]\d{0,3})GB", name)
    if not found:
        raise InputError(
            f"device {name!r}: write the memory of one GPU, such as 80GB, or with their number, "
            f"such as 8x80GB"
        )
    # sold as 80 GB it has 80 GiB: the 7 % between them are for the driver and the libraries
    hbm = int(found[2]) * 1e9 / 2**30
    return GPUs(int(found[1] or 1), Chip(hbm, 312e12, 2039e9, 600e9, 1, 0))
