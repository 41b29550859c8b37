"""The claims and the picture of the benchmark, made from invented times."""

import numpy as np
import pytest
import xarray as xr

from experiments import benchmark_training as benchmark
from toymodels import plotting


@pytest.fixture
def results():
    """Ours is 100 times as fast as PyTorch with two threads, and 10 times as fast as vmap."""
    rates = np.array([1000.0, 100.0, 5.0, 10.0])
    rounds = np.array([1.0, 0.5, 2.0])  # the median is 1
    sizes = {"5,2": 1.0, "2,1": 4.0}
    rate = np.array([scale * rates[:, None] * rounds for scale in sizes.values()])
    dims = ("size", "contender", "round")
    growth = {
        f"{kind}_by_{name}": (name, [1.0, 2.0, 3.0])
        for kind in ("rate", "memory")
        for name in ("cells", "steps", "features")
    }
    return xr.Dataset(
        {
            "rate": (dims, rate),
            "compile_cold": (dims, np.full(rate.shape, 2.0)),
            "compile_cached": (dims, np.full(rate.shape, 1.0)),
            "limit": (("size", "round"), np.outer([1.0, 4.0], 2000 * rounds)),
            "limit_by_features": ("features", [2.0, 4.0, 6.0]),
            **growth,
        },
        {
            "size": list(sizes),
            "contender": list(benchmark.CONTENDERS),
            **{name: [1, 10, 100] for name in ("cells", "steps", "features")},
        },
        {"cells_of_size": [8, 16], "cores": 2, "processor": "x86_64 with AVX"},
    )


def test_the_claims_are_ratios_of_medians(results):
    measured = [claim.measured for claim in benchmark.claims(results)]
    np.testing.assert_allclose(measured, [100, 100, 1 / 2, 1 / 2, 10, 10, 1 / 2, 1, 3])


def test_without_pytorch_there_is_no_claim_about_it(results):
    results["rate"].loc[{"contender": list(benchmark.CONTENDERS[2:])}] = np.nan
    measured = [claim.measured for claim in benchmark.claims(results)]
    np.testing.assert_allclose(measured, [1 / 2, 1 / 2, 10, 10, 1 / 2, 1, 3])


@pytest.mark.parametrize("count", [3, 0])
def test_the_picture_shows_sizes_in_order_with_the_ratio_written_on_it(results, count):
    """The picture can also be drawn at smoke scale, where the benchmark measures only one size."""
    results = results.isel(features=slice(count), steps=slice(count))
    with plotting.style():
        figure = benchmark.plot(results)
        figure.canvas.draw()
    plotting.check_figure(figure)
    speed = figure.axes[0]
    assert [tick.get_text()[:10] for tick in speed.get_xticklabels()] == [
        "2 features",
        "5 features",
    ]
    assert [text.get_text() for text in speed.texts if text.get_text()] == ["x 100", "x 100"]
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["2,\n1", "5,\n2"]
    titles = [axes.get_title() for axes in figure.axes]
    assert len(set(titles)) == len(titles)
