"""The claims of the benchmark of a card, from invented numbers, since no card runs the tests."""

import numpy as np
import pytest
import xarray as xr

from experiments import benchmark_gpu as benchmark
from toymodels import plotting

PROGRAM = """
%body.1 (arg: f32[2]) -> f32[2] {
  %arg = f32[2]{0} parameter(0)
  %first = f32[2]{0} fusion(%arg), kind=kLoop, calls=%inside
  %rest = f32[2]{0} call(%first), to_apply=%recorded
  ROOT %out = (f32[2]{0}) tuple(%rest)
}

%recorded (arg.2: f32[2]) -> f32[2] {
  %arg.2 = f32[2]{0} parameter(0)
  %second = (f32[2]{0}, s8[4]{0}) custom-call(%arg.2), custom_call_target="__cublas$gemm"
  ROOT %third = f32[2]{0} fusion(%second), kind=kInput, calls=%inside
}

%inside (arg.3: f32[2]) -> f32[2] {
  %arg.3 = f32[2]{0} parameter(0)
  ROOT %copy = f32[2]{0} copy(%arg.3)
}

ENTRY %main (arg.4: f32[2]) -> f32[2] {
  ROOT %loop = f32[2]{0} while(%arg.4), condition=%less, body=%body.1
}
"""


def test_kernels_are_counted_in_the_loop_and_in_what_it_calls():
    """The operations inside a fusion are part of its kernel."""
    assert benchmark.kernels_of_a_step(PROGRAM) == 3


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
    """A card on which two widths were measured, and one cell changed a bit after a resume."""
    runs = {"size": "5,2", "path": "ours", "compiling": 1.0, "kernels": 7}
    runs |= {"issue": 2e8, "memory": 1e9}
    data = {f"run_{name}": ("run", [value] * 2) for name, value in runs.items()}
    data |= {"run_width": ("run", [1024, 8192]), "run_launch": ("run", [1e8, 8e8])}
    share = np.full((6, 3), 1 / 6)
    return xr.Dataset(
        {
            **data,
            "rate": (("run", "round"), [[1e7, 2e7, 3e7], [3e7, 5e7, 4e7]]),
            "gradient_error": (("size", "path"), [[1e-6, 1e-3, 1e-7]]),
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


def test_the_claims_take_the_fastest_width_and_name_what_is_wrong(results):
    claims = list(benchmark.claims(results))
    measured = [1e-6, 1e-3, 1e-7, 0, 1, 1e-7, 4e7, 50, 290]
    np.testing.assert_allclose([claim.measured for claim in claims], measured)
    assert [claim.holds for claim in claims] == [measure not in (1e-3, 1) for measure in measured]


def test_a_processor_makes_no_claim_about_the_speed_of_a_card(results):
    results["run_issue"][:] = np.nan
    assert len(list(benchmark.claims(results))) == 6


def test_the_picture_can_be_read(results):
    with plotting.style():
        figure = benchmark.plot(results)
    plotting.check_figure(figure)
