"""A sweep that is run again runs what is missing, and never mixes numbers of another program."""

import contextlib
import importlib.metadata

import jax.numpy as jnp
import numpy as np
import pytest
from faults import AXES, CELLS, bits, cell, held, sweep

from toymodels.engine.compiling import environment
from toymodels.sweeps import blocks, program

pytestmark = pytest.mark.as_users_compile


def changed_cell(key, *, a, b):
    return {**cell(key, a=a, b=b), "count": jnp.int32(7)}


changed_cell.__module__, changed_cell.__qualname__ = cell.__module__, "cell"  # an edited cell


@contextlib.contextmanager
def changed(what, monkeypatch):
    """Return another way to sweep, which may differ in bits."""
    version = importlib.metadata.version
    with monkeypatch.context() as patch:
        arguments = {}
        match what:
            case "program":
                arguments = {"cell": changed_cell}
            case "width":
                arguments = {"width": 16}
            case "axes":
                arguments = {"axes": dict(reversed(AXES.items()))}
            case "processor":
                other = {**environment(), what: "Z80"}
                patch.setattr(program, "environment", lambda: other)
                patch.setattr(blocks, "environment", lambda: other)
            case "version":
                other = {"optax": "9.9.9"}
                patch.setattr(
                    importlib.metadata, "version", lambda name: other.get(name) or version(name)
                )
            case "flags":
                patch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_min_max=true")
            case "number of devices":
                here = environment()["XLA_FLAGS"]
                patch.setenv("XLA_FLAGS", f"{here} --xla_force_host_platform_device_count=7")
            case "options":
                slow = {"xla_cpu_enable_fast_math": False}
                patch.setattr(program, "compiler_options", lambda **_: slow)
        yield arguments


@pytest.mark.parametrize(
    ("what", "names", "then", "now"),
    [
        ("program", {"program"}, "", ""),
        ("width", {"block width", "program"}, "8", "16"),
        ("axes", {"axes"}, "a, b", "b, a"),
        ("processor", {"processor"}, "86", "Z80"),
        ("version", {"versions"}, "optax=", "optax=9.9.9"),
        ("flags", {"XLA_FLAGS"}, "", "--xla_cpu_enable_fast_min_max=true"),
        ("options", {"compiler options"}, "true", "false"),
    ],
)
def test_what_changes_bits_is_named_and_never_mixed(
    what, names, then, now, path, ran, monkeypatch, undisturbed
):
    sweep(store=path)
    ran.clear()
    with changed(what, monkeypatch) as arguments:
        kept = "48 cells of 'faults.cell' that are kept and not used, because something changed"
        with pytest.warns(UserWarning, match=kept) as caught:
            other = sweep(**arguments, store=path)
        (warning,) = caught
        _, changes = str(warning.message).split("something changed: ")
        parts = [part.partition(" was ") for part in changes.split("; ")]
        assert {name for name, *_ in parts} == names
        (values,) = [values for name, _, values in parts if name == min(names)]
        before, after = values.split(", is ")
        assert then in before
        assert now in after
        assert len(ran) == CELLS
        ran.clear()
        assert bits(sweep(**arguments, store=path)) == bits(other)
        assert ran == []
        assert bits(sweep(**arguments)) == bits(other)
    ran.clear()
    assert bits(sweep(store=path)) == bits(undisturbed)
    assert ran == []
    assert held(path) == 2 * CELLS


def test_what_changes_no_bits_changes_nothing(path, ran, monkeypatch, undisturbed):
    sweep(store=path)
    ran.clear()
    with changed("number of devices", monkeypatch):
        assert bits(sweep(store=path)) == bits(undisturbed)
    assert ran == []


def test_a_sweep_that_grows_runs_only_what_is_missing(path, ran, undisturbed):
    a, b = AXES.values()
    grown = [
        ({"axes": {"a": a[:2], "b": b[1:3]}, "num_seeds": 1}, 4),
        ({"axes": {"a": a[1:4], "b": b[1:3]}, "num_seeds": 1}, 4),
        ({"axes": {"a": a[1:4], "b": b[1:3]}, "num_seeds": 2}, 6),
        ({"axes": {"a": a[3::-1], "b": b[2:0:-1]}, "num_seeds": 2}, 2),
        ({"axes": {"a": a[3::-1], "b": b[2:0:-1]}, "num_seeds": 1}, 0),
        ({"axes": AXES, "num_seeds": 2}, CELLS - 16),
        ({"axes": {"a": a[::-1], "b": b[::-1]}, "num_seeds": 2}, 0),
        ({"axes": {("a", "b"): list(zip(a[:4], b, strict=True))}, "num_seeds": 2}, 0),
    ]
    seen = set()
    for arguments, missing in grown:
        results = sweep(**arguments, store=path)
        assert len(ran) == missing
        assert not seen & set(ran)
        seen |= set(ran)
        ran.clear()
        if len(arguments["axes"]) == 2:
            assert bits(results) == bits(undisturbed.sel(results.coords))
        else:
            diagonal = undisturbed.sel(a=results["a"], b=results["b"])
            np.testing.assert_array_equal(results["y"], diagonal["y"])
    assert held(path) == CELLS
