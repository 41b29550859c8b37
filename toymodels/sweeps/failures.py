"""What to tell a user whose cell cannot be traced: the line of the cell, and the remedy."""

import linecache
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

# Errors of these types, or TypeErrors with these words, mean that something wanted a number and
# got one that is traced.
_TYPES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
_WORDS = ("JitTracer", "DynamicJaxprTracer", "Only integer scalar arrays can be converted")
_PACKAGE = str(Path(__file__).parent.parent)
_LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")})


def needs_plain_numbers(error: Exception) -> bool:
    """Whether an error says that a traced number was used as a plain one."""
    if isinstance(error, _TYPES):
        return True
    return isinstance(error, TypeError) and any(word in str(error) for word in _WORDS)


def explain(error: Exception, cell: Any, needed: Callable[[], list[str]]) -> str | None:
    """One line with the place in the user's code, the axis and the remedy.

    Args:
        error: what the cell raised when it was traced.
        cell: the function that was called.
        needed: names of the axes whose plain numbers it needs; called only where that matters.

    Returns:
        None for an error that is not about traced numbers and speaks for itself.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if "`compiler_options` can only be passed to top-level" in str(error):
        return (
            f"{_place(_users(frames, cell))}tm.jit stands inside the cell, which the sweep "
            "compiles as a whole: leave it out, or use jax.jit there"
        )
    if not needs_plain_numbers(error):
        return None
    where = _place(_users(frames, cell))
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
    """Where in the user's code an equation of a traced program comes from."""
    recorded = equation.source_info.traceback
    if recorded is None:
        return ""
    frames = traceback.extract_tb(recorded.as_python_traceback())
    return _place(_users(frames, cell))


_JNP = "use jnp in place of np, and no float() or int()"


def _remedy(error: Exception, frames: Sequence[traceback.FrameSummary]) -> str | None:
    """What to write instead; None where only a plain number will do, as for a length."""
    outside = [frame for frame in frames if f"{Path(jax.__file__).parent}" not in frame.filename]
    if isinstance(error, jax.errors.TracerBoolConversionError):
        if outside and _is_library(outside[-1].filename):
            return None  # Optax wants the length of a schedule
        return "use jnp.where in place of if, and, or and not"
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return "use jnp in place of np, such as jnp.sqrt"
    if "`float` function" in str(error):
        return "use jnp in place of math, such as jnp.sqrt, and no float()"
    return None


def _users(frames: Sequence[traceback.FrameSummary], cell: Any) -> traceback.FrameSummary | None:
    """The innermost frame in the file of the cell, or else in any code of the user's."""
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
