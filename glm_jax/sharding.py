"""Where the weights of a model lie on a mesh of devices."""

from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glm_jax.errors import InputError

# an axis that the mesh lacks shards nothing
RULES = {
    "embed": "fsdp",
    "vocab": "tensor",
    "q_heads": "tensor",
    "kv_heads": "tensor",
    "ffn": "tensor",
}


def weight_sharding(param: nnx.Param, mesh: Mesh) -> NamedSharding:
    """The sharding of a weight by its logical axes.

    Key/value heads that are fewer than the tensor axis are replicated. Any other dimension that
    its mesh axis does not divide raises InputError.
    """
    axes = param.get_metadata("axes")
    spec: list[str | None] = [None] * len(param.shape)
    for i, axis in enumerate(axes, start=len(param.shape) - len(axes)):
        ways = mesh.shape.get(RULES.get(axis, ""), 1)
        if ways == 1:
            continue
        if param.shape[i] % ways == 0:
            spec[i] = RULES[axis]
        elif axis != "kv_heads":
            raise InputError(
                f"the mesh axis {RULES[axis]!r} of {ways} devices does not divide the dimension "
                f"{axis!r} of {param.shape[i]}"
            )
    return NamedSharding(mesh, PartitionSpec(*spec))
