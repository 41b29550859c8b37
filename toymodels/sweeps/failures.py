"""Explain why a cell cannot be traced: the line of the cell at fault, and the remedy."""

import linecache
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

# Errors of these types, and TypeErrors with these words, mean that something needed a plain number
# and was given a traced one.
_TYPES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
_WORDS = ("JitTracer", "DynamicJaxprTracer", "Only integer scalar arrays can be converted")
_PACKAGE = str(Path(__file__).parent.parent)
_LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")})


def needs_plain_numbers(error: Exception) -> bool:
    """Return whether an error says that a traced number was used as a plain one."""
    if isinstance(error, _TYPES):
        return True
    return isinstance(error, TypeError) and any(word in str(error) for word in _WORDS)


def explain(error: Exception, cell: Any, needed: Callable[[], list[str]]) -> str | None:
    """Explain in one line why a cell cannot be traced.

    Args:
        error: the error that the cell raised when it was traced.
        cell: the function.
        needed: returns the names of the axes whose plain numbers the cell needs. It is called
            only if the answer matters.

    Returns:
        The place in the user's code, the reason and the remedy; None if the error has nothing to
        do with the sweep.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = _place(_users(frames, cell))
    if "`compiler_options` can only be passed to top-level" in str(error):
        return (
            f"{where}tm.jit stands inside the cell, which the sweep compiles as a whole: leave it "
            "out, or use jax.jit there"
        )
    if _is_wrong_call(error, frames):
        return f"{where}{error}: {_wrong_call_remedy(error)}"
    if not needs_plain_numbers(error):
        return None
    names = needed()
    remedy = _remedy(error, frames)
    if not names:
        return f"{where}an array of the cell has no value while it is compiled: {remedy or _JNP}"
    axes = ("axis " if len(names) == 1 else "axes ") + ", ".join(map(repr, names))
    if remedy is None:
        return f"{where}the cell needs a plain number for {axes}: sweep it with static="
    return (
        f"{where}the cell needs a plain number for {axes}, which has all its values at once "
        f"in a sweep: {remedy}, or sweep it with static="
    )


def place_of_equation(equation: Any, cell: Any) -> str:
    """Return the place in the user's code that an equation of a traced program comes from."""
    recorded = equation.source_info.traceback
    if recorded is None:
        return ""
    frames = traceback.extract_tb(recorded.as_python_traceback())
    return _place(_users(frames, cell))


_JNP = "use jnp in place of np, and no float() or int()"


def _is_wrong_call(error: Exception, frames: Sequence[traceback.FrameSummary]) -> bool:
    """Return whether the user's code called a function with arguments that it does not take."""
    words = ("unexpected keyword argument", "required positional argument", "positional arguments")
    return (
        isinstance(error, TypeError)
        and any(word in str(error) for word in words)
        and not _is_library(frames[-1].filename)
    )


def _wrong_call_remedy(error: Exception) -> str:
    if "'sparsity'" in str(error):
        return "give density=1 - sparsity, the probability that a feature is active"
    return "call the function with the arguments that its help names"


def _remedy(error: Exception, frames: Sequence[traceback.FrameSummary]) -> str | None:
    """Return what to write instead; None where only a plain number will do, such as a length."""
    outside = [frame for frame in frames if f"{Path(jax.__file__).parent}" not in frame.filename]
    if isinstance(error, jax.errors.TracerBoolConversionError):
        if outside and _is_library(outside[-1].filename):
            return None  # for example, Optax needs the length of a schedule
        return "use jnp.where in place of if, and, or and not"
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return "use jnp in place of np, such as jnp.sqrt"
    if "`float` function" in str(error):
        return "use jnp in place of math, such as jnp.sqrt, and no float()"
    return None


def _users(frames: Sequence[traceback.FrameSummary], cell: Any) -> traceback.FrameSummary | None:
    """Return the innermost frame in the file of the cell, or else in any code of the user."""
    code = getattr(cell, "__code__", None)
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    rest = [frame for frame in frames if not _is_library(frame.filename)]
    return next(reversed(own or rest), None)


def _is_library(filename: str) -> bool:
    return filename.startswith((_PACKAGE, *_LIBRARIES, "<frozen", "<@beartype"))


def _place(frame: traceback.FrameSummary | None) -> str:
    if frame is None:
        return ""
    line = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    return f"{Path(frame.filename).name}:{frame.lineno}: `{line}`: "
