"""Matrix products whose last bits would depend on the place of a lane in its block.

Where all lanes share one operand, XLA makes one product of all lanes: it places the columns of
all lanes side by side. YNNPACK, a library of kernels that XLA uses on a CPU, divides these columns
into pieces of at most 16,384, and multiplies the last piece by another kernel, whose sums have
another order. The product of two equal lanes then differs in last bits. Other kernels of XLA and
products whose sums run over the last dimension of the lanes show no such difference. They were
tried with 1 to 100 rows, sums of 2 to 400 terms and 6 to 70,001 columns.
"""

from typing import Any

from jax.extend import core


def lanes_side_by_side(jaxpr: core.Jaxpr, width: int) -> bool:
    """Return whether a program multiplies one matrix by the columns of all lanes.

    Lanes are known by their number alone. Another dimension of that size is taken for the lanes,
    too: the program is then slower than it could be, and its numbers are right.

    Args:
        jaxpr: the traced program of a block, with the lanes as a dimension of their own.
        width: how many lanes a block has.
    """
    return any(
        (equation.primitive.name == "dot_general" and _side_by_side(equation, width))
        or any(lanes_side_by_side(inner, width) for inner in core.jaxprs_in_params(equation.params))
        for equation in jaxpr.eqns
    )


def any_in(jaxpr: core.Jaxpr) -> bool:
    """Return whether a program multiplies matrices."""
    return any(
        equation.primitive.name == "dot_general"
        or any(map(any_in, core.jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


def _side_by_side(equation: core.JaxprEqn, width: int) -> bool:
    """Return whether an operand with free lanes is summed over another than its last dimension."""
    contracted, batch = equation.params["dimension_numbers"]
    for operand, summed, batched in zip(equation.invars, contracted, batch, strict=True):
        aval: Any = operand.aval
        free = set(range(aval.ndim)) - set(summed) - set(batched)
        lanes = any(aval.shape[dimension] == width for dimension in free)
        if lanes and max(free) > min(summed, default=aval.ndim):
            return True
    return False
