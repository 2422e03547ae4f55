"""Operations of a traced program: its matrix products, with how often loops run."""

import math

from jax.extend.core import ClosedJaxpr, Jaxpr


def flops(jaxpr: Jaxpr | ClosedJaxpr, tokens: int) -> float:
    """Two for each multiply-and-add, of all devices together.

    A scan counts as often as it runs, a branch as its largest, and a loop without a known end, as
    decoding's is, as the `tokens` of the longest answer. A kernel counts at each point of its
    grid, those that it skips included: causal attention is the whole square, as on the plain path.
    """
    total = 0.0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, parameters = eqn.primitive.name, eqn.params
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            if contracted:  # if not, it is an elementwise product
                depth = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
                total += 2.0 * depth * math.prod(eqn.outvars[0].aval.shape)
        elif name == "ragged_dot_general":
            total += 2.0 * math.prod(eqn.outvars[0].aval.shape) * eqn.invars[0].aval.shape[-1]
        elif name == "scan":
            total += parameters["length"] * flops(parameters["jaxpr"], tokens)
        elif name == "while":
            total += tokens * flops(parameters["body_jaxpr"], tokens)
        elif name == "cond":
            total += max(flops(branch, tokens) for branch in parameters["branches"])
        elif name == "pallas_call":
            points = math.prod(parameters["grid_mapping"].grid)
            total += points * flops(parameters["jaxpr"], tokens)
        elif name == "shard_map":  # what it holds is one device's
            total += parameters["mesh"].size * flops(parameters["jaxpr"], tokens)
        else:
            inner = (parameters[key] for key in ("jaxpr", "call_jaxpr") if key in parameters)
            total += sum(flops(each, tokens) for each in inner)
    return total
