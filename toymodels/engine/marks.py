"""Marks on trained parameters, by which a sweep sees whether a cell diverged.

The outputs of a cell can hide that its parameters are not finite: a count of NaN is a number.
So training marks its final parameters, and a sweep checks for each cell that all marked arrays in
the traced program are finite.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core
from jaxtyping import Array, Bool, PyTree

_MARK = "toymodels.trained"


def trained(params: PyTree) -> PyTree:
    """Mark parameters as the result of training and return them."""
    return checkpoint_name(params, _MARK)


def any_in(jaxpr: core.Jaxpr) -> bool:
    """Return whether a program marks anything."""
    return any(
        _is_mark(eqn) or any(any_in(sub) for sub in core.jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def evaluate(program: core.ClosedJaxpr, arguments: Sequence[Any]) -> tuple[list[Any], Any]:
    """Return the outputs of a traced program, and whether all marked arrays are finite.

    Marks in called functions, in `scan`, `cond` and `while_loop` count where they are reached.
    Marks inside a function with its own rule for `vmap` do not count.
    """
    jaxpr, consts = program.jaxpr, program.consts
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))
    finite: list[Bool[Array, ""]] = []

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        inner = [sub for sub in core.jaxprs_in_params(eqn.params) if any_in(sub)]
        control = _CONTROL.get(eqn.primitive.name) if inner else None
        with eqn.ctx.manager:
            if control is not None:
                outputs, fine = control(eqn.params, inputs)
                finite.append(fine)
            else:
                outputs = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
        outputs = outputs if eqn.primitive.multiple_results else [outputs]
        values.update(zip(eqn.outvars, outputs, strict=True))
        if _is_mark(eqn):
            finite.append(_finite(inputs[0]))
    return [read(atom) for atom in jaxpr.outvars], jnp.all(jnp.asarray(finite))


def _is_mark(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name == "name" and eqn.params["name"] == _MARK


def _finite(value: Any) -> Bool[Array, ""]:
    inexact = jnp.issubdtype(value.dtype, jnp.inexact)
    return jnp.all(jnp.isfinite(value)) if inexact else jnp.asarray(True)


def _call(params: dict[str, Any], inputs: Sequence[Any]) -> tuple[list[Any], Any]:
    called = params.get("jaxpr", params.get("call_jaxpr"))
    return evaluate(_closed(called), inputs)


def _scan(params: dict[str, Any], inputs: Sequence[Any]) -> tuple[list[Any], Any]:
    if "num_carry" in params:
        consts, carried = params["num_consts"], params["num_carry"]
    else:  # from JAX 0.11 on
        consts, carried = map(len, params["ft_in"].unpack()[:2])

    def body(carry: Any, row: Any) -> Any:
        outputs, fine = evaluate(_closed(params["jaxpr"]), [*inputs[:consts], *carry, *row])
        return outputs[:carried], (outputs[carried:], fine)

    last, (rows, fine) = lax.scan(
        body,
        list(inputs[consts : consts + carried]),
        list(inputs[consts + carried :]),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*last, *rows], jnp.all(fine)


def _cond(params: dict[str, Any], inputs: Sequence[Any]) -> tuple[list[Any], Any]:
    branches = [
        lambda *operands, branch=branch: evaluate(_closed(branch), operands)
        for branch in params["branches"]
    ]
    return lax.switch(inputs[0], branches, *inputs[1:])


def _while(params: dict[str, Any], inputs: Sequence[Any]) -> tuple[list[Any], Any]:
    of_test, of_body = params["cond_nconsts"], params["body_nconsts"]
    consts, start = inputs[of_test : of_test + of_body], list(inputs[of_test + of_body :])

    def goes_on(carry: Any) -> Any:
        (answer,) = core.jaxpr_as_fun(_closed(params["cond_jaxpr"]))(*inputs[:of_test], *carry[0])
        return answer

    def body(carry: Any) -> Any:
        # The parameters count as they are after the last turn, so earlier answers are dropped.
        return evaluate(_closed(params["body_jaxpr"]), [*consts, *carry[0]])

    return lax.while_loop(goes_on, body, (start, jnp.asarray(True)))


def _closed(jaxpr: Any) -> core.ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else core.ClosedJaxpr(jaxpr, [])


_CONTROL = {
    "jit": _call,
    "pjit": _call,
    "remat2": _call,
    "checkpoint": _call,
    "closed_call": _call,
    "core_call": _call,
    "custom_jvp_call": _call,
    "custom_vjp_call": _call,
    "scan": _scan,
    "cond": _cond,
    "while": _while,
}
