"""The claims of the benchmark of a card, from invented numbers, since no card runs the tests."""

import numpy as np
import pytest
import xarray as xr

from experiments import benchmark_gpu as benchmark
from toymodels import plotting


def test_the_gradient_in_numpy_is_the_derivative_of_the_loss():
    """Central differences of the loss, which is quadratic on each side of a kink."""
    rng = np.random.default_rng(0)
    x, importance = rng.random((7, 3)), np.array([1.0, 0.5, 0.25])
    point = {"weights": rng.normal(size=(2, 3)), "bias": rng.normal(size=3)}

    def loss(weights, bias):
        output = np.maximum(x @ weights.T @ weights + bias, 0)
        return (importance * (x - output) ** 2).sum(1).mean()

    gradient = benchmark.exact_gradient(**point, x=x, importance=importance)
    for name, values in point.items():
        for index in np.ndindex(values.shape):
            step = np.zeros(values.shape)
            step[index] = 1e-6
            ends = [loss(**(point | {name: values + sign * step})) for sign in (1, -1)]
            np.testing.assert_allclose(
                gradient[name][index], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-8
            )


@pytest.fixture
def results():
    """A card on which one cell changed a bit after a resume; kernels are the fastest path."""
    runs = {"size": "5,2", "compiling": 1.0, "kernels": 7, "issue": 2e8, "memory": 1e9}
    runs |= {"lowest_bound": 1e8}
    data = {f"run_{name}": ("run", [value] * 3) for name, value in runs.items()}
    data |= {"run_width": ("run", [1024, 8192, 8192]), "run_launch": ("run", [1e8, 8e8, 8e8])}
    data |= {"run_path": ("run", ["ours", "ours", "kernel"])}
    share = np.full((6, 3), 1 / 6)
    return xr.Dataset(
        {
            **data,
            "rate": (("run", "round"), [[1e7, 2e7, 3e7], [3e7, 5e7, 4e7], [6e7, 8e7, 7e7]]),
            "gradient_error": (("size", "path"), [[1e-6, 1e-3, 1e-7, 1e-8]]),
            "changed": ("sweep", [0, 1]),
            "singular_value_error": 1e-7,
            "share": (("represented", "density"), share),
            "models": 1000,
            "models_seconds": 50.0,
            "seconds": 290.0,
        },
        {
            "size": ["5,2"],
            "path": list(benchmark.PATHS),
            "sweep": ["alone", "after a resume"],
            "represented": range(6),
            "density": [0.1, 0.3, 1.0],
        },
        {"card": "NVIDIA H200"},
    )


def test_the_claims_take_the_fastest_run_and_name_what_is_wrong(results):
    claims = list(benchmark.claims(results))
    measured = [1e-6, 1e-3, 1e-7, 1e-8, 0, 1, 1e-7, 7e7, 7e7, 50, 290]
    np.testing.assert_allclose([claim.measured for claim in claims], measured)
    assert [claim.holds for claim in claims] == [measure not in (1e-3, 1) for measure in measured]


def test_a_path_that_failed_fails_its_claim(results):
    results["gradient_error"].loc[{"path": "kernel"}] = np.nan
    failed = [claim.statement for claim in benchmark.claims(results) if np.isnan(claim.measured)]
    assert len(failed) == 1
    assert "'kernel'" in failed[0]


def test_a_processor_makes_no_claim_about_the_speed_of_a_card(results):
    results["run_issue"][:] = np.nan
    assert len(list(benchmark.claims(results))) == 7


def test_the_picture_can_be_read(results):
    with plotting.style():
        figure = benchmark.plot(results)
    plotting.check_figure(figure)
