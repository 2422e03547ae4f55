"""Operations of a traced program: its matrix products, with how often loops run."""

import math
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import AbstractMesh, Mesh


class Rounds(NamedTuple):
    """How often loops run at most whose end is not known before."""

    tokens: float = 1  # that over the tokens of an answer, each time
    sets: float = 1  # that over sets of prompts which take their turns


ONCE = Rounds()


def flops(
    jaxpr: Jaxpr | ClosedJaxpr, rounds: Rounds = ONCE, mesh: Mesh | AbstractMesh | None = None
) -> float:
    """Two for each multiply-and-add, of all devices together.

    A scan counts as often as it runs, a branch as its largest, and a loop without a known end, as
    decoding's is, as `rounds` say. A kernel counts at each point of its grid, those that it skips
    included: causal attention is the whole square, as on the plain path. `mesh`: each of its
    devices runs this.
    """
    total, devices = 0.0, mesh.size if mesh else 1
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, parameters = eqn.primitive.name, eqn.params
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            if contracted:  # if not, it is an elementwise product
                depth = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
                total += devices * 2.0 * depth * math.prod(eqn.outvars[0].aval.shape)
        elif name == "ragged_dot_general":
            # devices along `expert` have room for all rows each, and share them
            total += devices / (mesh.shape.get("expert", 1) if mesh else 1) * _ragged(eqn)
        elif name == "scan":
            total += parameters["length"] * flops(parameters["jaxpr"], rounds, mesh)
        elif name == "while":
            decoding = "decode" in str(eqn.source_info.name_stack)
            times = rounds.tokens if decoding else rounds.sets
            total += times * flops(parameters["body_jaxpr"], rounds, mesh)
        elif name == "cond":
            total += max(flops(branch, rounds, mesh) for branch in parameters["branches"])
        elif name == "pallas_call":
            points = math.prod(parameters["grid_mapping"].grid)
            total += points * flops(parameters["jaxpr"], rounds, mesh)
        elif name == "shard_map":
            total += flops(parameters["jaxpr"], rounds, parameters["mesh"])
        else:
            inner = (parameters[key] for key in ("jaxpr", "call_jaxpr") if key in parameters)
            total += sum(flops(each, rounds, mesh) for each in inner)
    return total


def _ragged(eqn: Any) -> float:
    """Of a product in which each row meets the matrix of its own group, or adds to its gradient."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (_, contracted), _ = numbers.dot_dimension_numbers
    met = {*contracted, *numbers.rhs_group_dimensions}
    rows, matrices = (x.aval.shape for x in eqn.invars[:2])
    columns = math.prod(size for axis, size in enumerate(matrices) if axis not in met)
    return 2.0 * math.prod(rows) * columns
