"""The mesh of devices that a run is spread over."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh
from pydantic import PositiveInt

from glm_jax import processes
from glm_jax.config import GLMConfig
from glm_jax.configuration import configuration
from glm_jax.errors import InputError

AXES = "data", "fsdp", "expert", "group", "tensor"


@configuration
class MeshConfig:
    """Devices along each axis; one device by default."""

    data: PositiveInt = 1
    "copies of the weights, with rows of their own"
    fsdp: PositiveInt = 1
    "parts of weights, gradients and moments along the hidden dimension, with rows of their own"
    tensor: PositiveInt = 1
    "parts of heads, ffn and vocabulary"
    expert: PositiveInt = 1
    "parts of the experts, with rows of their own"
    slices: PositiveInt = 1
    "slices of a pod; `data` goes over the network between them"

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.tensor * self.expert

    @property
    def rows(self) -> int:
        """Parts into which the rows of a batch are split."""
        return self.data * self.fsdp * self.expert

    def __str__(self) -> str:
        parts = {name: getattr(self, name) for name in ("data", "fsdp", "tensor", "expert")}
        return ", ".join(f"{name} {n}" for name, n in parts.items() if n > 1) or "one device"


def mesh_for(
    config: MeshConfig, models: Sequence[GLMConfig], rows: Mapping[str, int]
) -> Mesh | None:
    """The mesh of a run with these models and numbers of rows; None for one device.

    Raises InputError when the devices, a model or a batch do not fit the mesh, by name.
    """
    if config.devices == config.slices == 1 and not processes.several():
        return None
    mesh = make_mesh(config, models, rows=rows)
    check_rows(config, rows)
    return mesh


def make_mesh(
    config: MeshConfig,
    models: Sequence[GLMConfig],
    devices: Sequence[Any] | None = None,
    rows: Mapping[str, int] | None = None,
) -> Mesh:
    """The mesh, on all devices that there are unless some are given.

    Raises InputError when they are not as many, or a model does not divide over the mesh: with the
    nearest mesh that would do, and would divide `rows`.
    """
    devices = jax.devices() if devices is None else devices
    check(config, models, len(devices), rows)
    sizes = abstract_mesh(config, models).axis_sizes
    if config.slices > 1:
        inside = config.data // config.slices, *sizes[1:]
        across = config.slices, *[1] * (len(sizes) - 1)
        try:
            array = mesh_utils.create_hybrid_device_mesh(
                inside, across, devices, allow_split_physical_axes=True,
                process_is_granule=devices[0].platform == "cpu",
            )  # fmt: skip
        except ValueError as error:
            raise InputError(f"mesh: slices ({config.slices}): {error}") from None
    elif devices[0].platform == "tpu":
        array = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    else:
        array = np.array(devices).reshape(sizes)
    return Mesh(array, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def abstract_mesh(config: MeshConfig, models: Sequence[GLMConfig]) -> AbstractMesh:
    """The mesh without its devices: `tensor` splits key/value heads as far as there are any."""
    group = math.gcd(config.tensor, *(model.num_key_value_heads for model in models))
    sizes = config.data, config.fsdp, config.expert, group, config.tensor // group
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check(
    config: MeshConfig,
    models: Sequence[GLMConfig],
    devices: int,
    rows: Mapping[str, int] | None = None,
) -> None:
    """Raises InputError unless the mesh has so many devices and divides the models; it names the
    nearest that does, and divides `rows`."""
    wrong = _wrong(config, models)
    if config.devices != devices:
        wrong = f"a mesh of {config.devices} devices ({config}), but there are {devices}"
    if wrong:
        nearest = _nearest(config, models, devices, (rows or {}).values())
        raise InputError(f"mesh: {wrong}" + (f"; {nearest} would do" if nearest else ""))


def _wrong(config: MeshConfig, models: Sequence[GLMConfig]) -> str | None:
    if config.data % config.slices:
        return f"slices ({config.slices}) must divide data ({config.data})"
    for model in models:
        sizes = {
            "fsdp": {"hidden_size": model.hidden_size},
            "tensor": {
                "num_attention_heads": model.num_attention_heads,
                "intermediate_size": model.intermediate_size,
                "vocab_size": model.vocab_size,
            },
        }
        if model.n_routed_experts:
            sizes["expert"] = {"n_routed_experts": model.n_routed_experts}
            sizes["tensor"]["moe_intermediate_size"] = model.moe_intermediate_size
        elif config.expert > 1:
            return f"expert ({config.expert}): the model has no experts"
        heads = model.num_key_value_heads
        if heads % config.tensor and config.tensor % heads:
            return f"tensor ({config.tensor}) must divide num_key_value_heads ({heads}), or they it"
        for axis, of in sizes.items():
            for name, size in of.items():
                if size % getattr(config, axis):
                    return f"{axis} ({getattr(config, axis)}) must divide {name} ({size})"
    return None


def _nearest(
    config: MeshConfig, models: Sequence[GLMConfig], devices: int, rows: Collection[int]
) -> MeshConfig | None:
    """The mesh of so many devices that divides models and rows and has the most like shape."""

    def distance(other: MeshConfig) -> tuple[float, int]:
        pairs = ((getattr(config, a), getattr(other, a)) for a in ("data", "fsdp", "tensor"))
        return round(sum(abs(math.log(a / b)) for a, b in pairs), 6), -other.fsdp

    mixed = all(model.n_routed_experts for model in models)
    expert = config.expert if mixed and devices % config.expert == 0 else 1
    each = devices // expert
    small = [n for n in range(1, math.isqrt(each) + 1) if each % n == 0]
    ways = sorted({*small, *(each // n for n in small)})
    found = [
        MeshConfig(
            data=each // (fsdp * tensor), fsdp=fsdp, tensor=tensor, expert=expert,
            slices=config.slices,
        )
        for fsdp in ways for tensor in ways if each % (fsdp * tensor) == 0
    ]  # fmt: skip
    fit = (m for m in found if not _wrong(m, models) and not any(n % m.rows for n in rows))
    return min(fit, key=distance, default=None)


def check_rows(config: MeshConfig, rows: Mapping[str, int]) -> None:
    """Raises InputError unless the mesh divides the rows of each batch, by name."""
    ways = config.rows
    for name, number in rows.items():
        if number % ways:
            below, above = number // ways * ways, (number // ways + 1) * ways
            better = f"{below} or {above}" if below else f"{above}"
            raise InputError(
                f"{name} ({number}): the mesh splits rows {ways} ways ({config}); {better} would do"
            )


@contextmanager
def on_mesh(mesh: Mesh | None) -> Iterator[None]:
    """Programs that are run inside are spread over the mesh."""
    with nullcontext() if mesh is None else jax.set_mesh(mesh):
        yield
