"""What experiments measure is right where the answer is known, on any processor."""

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from toymodels import experiment

ROOT = Path(__file__).parent.parent


def load(name):
    """The module of an experiment."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("place", [0.0, 0.0005, -0.0005, 1.2345])
def test_rounding_of_one_shared_score_ranks_nothing(place):
    """Two in three examples share one score: wherever it lies, rounding must not tell them apart.

    The scores of both groups are the same numbers up to 1e-6 of a standard deviation, so the AUROC
    is 1/2. On a grid of 1/1000 the shared score at 0.0005 lies on an edge, and it is far from 1/2.
    """
    rng = np.random.default_rng(0)
    scores = np.where(rng.random(300) < 2 / 3, place, rng.normal(size=300))
    noise = 1e-6 * np.abs(rng.normal(size=(2, 300)))
    auroc = load("linear_representations").ranked(
        jnp.asarray(scores + noise[0]), jnp.asarray(scores - noise[1])
    )
    np.testing.assert_allclose(auroc, 1 / 2, atol=1e-3)


def test_scores_that_differ_are_ranked_as_mann_and_whitney_say():
    rng = np.random.default_rng(1)
    positives, negatives = rng.normal(0.5, 1, 200), rng.normal(0, 1, 150)
    auroc = load("linear_representations").ranked(jnp.asarray(positives), jnp.asarray(negatives))
    exact = (positives[:, None] > negatives[None, :]).mean()
    np.testing.assert_allclose(auroc, exact, atol=1e-3)


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


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda p: p.stem)
def test_every_experiment_loads(path):
    """Its scales are Configs, and it has what the command needs."""
    loaded = experiment.load(path)
    assert {"default", "smoke"} <= loaded.scales.keys()
    assert loaded.claims is not None
    assert loaded.plot is not None
