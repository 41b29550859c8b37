"""The functions of experiments are right on inputs whose answer is known, on any processor."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from toymodels import experiment

ROOT = Path(__file__).parent.parent


def load(name):
    """Return the module of an experiment."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_boundary_is_half_a_cell_above_the_last_density_inside():
    density = np.geomspace(0.01, 1, 9)
    inside = xr.DataArray(
        (density < 0.2)[:, None],
        dims=("density", "importance"),
        coords={"density": density, "importance": [1.0]},
    )
    found = load("phase_diagram").last_density(inside)
    np.testing.assert_allclose(
        found, np.sqrt(density[density < 0.2][-1] * density[density > 0.2][0])
    )


def test_edges_of_equal_scores_count_as_in_a_random_order():
    """The best edge is true, and one of the next two."""
    scores = xr.DataArray([3.0, 1.0, 1.0, 0.0], dims="edge")
    used = xr.DataArray([True, True, False, False], dims="edge")
    recovered = load("compressed_programs").recovered
    assert recovered(scores, used) == (1 + 1 / 2) / 2
    assert recovered(xr.zeros_like(scores), used) == 1 / 2


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda p: p.stem)
def test_every_experiment_loads(path):
    """The file has claims, a plot, and Configs for the default and the smoke scale."""
    loaded = experiment.load(path)
    assert {"default", "smoke"} <= loaded.scales.keys()
    assert loaded.claims is not None
    assert loaded.plot is not None
