"""Results go back to arrays: the best seed, the parameters of one model, a measure of each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import toymodels as tm
from toymodels.analysis import geometry
from toymodels.errors import InputError

SIZES = {2: 2, 5: 5}  # of hidden dimensions, under their labels


def cell(key, *, hidden, density):
    """The example of the README, short, with its parameters as nested outputs."""
    task = tm.Task(tm.SparseUniform(4, density))
    trained = tm.train(
        key, tm.ReLUOutput(hidden), task, optimizer=optax.adam(1e-2), steps=5, batch=8
    )
    history = trained.history
    return {"params": trained.params, "curve": history.loss, "step": history.step}


@pytest.fixture(scope="module")
def results():
    return tm.sweep(
        cell,
        axes={"density": [0.3, 0.1]},
        static={"hidden": [2, 5]},
        seeds=[3, 1],
        dims={
            "params.weights": ("hidden_dimension", "feature"),
            "params.bias": ("feature",),
            "curve": ("step",),
        },
        progress=False,
    )


def test_best_of_takes_the_lowest_and_skips_what_diverged():
    loss = xr.DataArray(
        [[3.0, 1.0, np.nan], [np.nan, np.nan, np.nan]],
        dims=("density", "seed"),
        coords={"density": [0.1, 0.2], "seed": [0, 1, 2]},
    )
    results = xr.Dataset({"loss": loss, "w": 10 * loss})
    best = tm.best_of(results, "loss")
    np.testing.assert_array_equal(best["loss"], [1, np.nan])
    np.testing.assert_array_equal(best["w"], [10, np.nan])
    assert int(best["seed"][0]) == 1


@pytest.mark.parametrize("by", ["weights", "nothing"])
def test_best_of_needs_one_number_per_cell(by):
    results = xr.Dataset({"weights": (("seed", "feature"), np.ones((2, 3)))}, {"seed": [0, 1]})
    with pytest.raises(InputError, match=by):
        tm.best_of(results, by)


def test_the_mean_without_the_worst_is_that_of_the_paper():
    """Nine models have norm 1, the worst of ten has norm 11: the paper's mean is 1."""
    labels = {"density": [0.1], "seed": range(10)}
    loss = xr.DataArray(np.arange(10.0)[None], labels, ("density", "seed"))
    results = xr.Dataset({"loss": loss, "norm": xr.where(loss == 9, 11.0, 1.0)})
    assert tm.mean_without_worst(results, "loss", of=10)["norm"].item() == 1
    assert tm.mean_without_worst(results, "loss", of=99)["loss"].item() == np.arange(9).mean()
    with pytest.raises(InputError, match="cannot choose by 'nothing'"):
        tm.mean_without_worst(results, "nothing", of=10)


def test_one_of_several_worst_members_is_left_out():
    """The mean of equal members is their value, and of 1, 2, 2 less one 2 it is 1.5."""
    loss = xr.DataArray([[5.0] * 3, [1.0, 2, 2], [1.0, np.nan, 2]], dims=("density", "seed"))
    results = xr.Dataset({"loss": loss, "norm": loss + 1}, {"density": range(3), "seed": range(3)})
    kept = tm.mean_without_worst(results, "loss", of=3)
    np.testing.assert_array_equal(kept["loss"], [5, 1.5, 1])
    np.testing.assert_array_equal(kept["norm"], [6, 2.5, 2])


def test_members_of_the_mean_are_drawn_anew_in_each_cell_and_none_twice():
    """Two of three models of loss 0, 1 and 2 are drawn, and the lower one stays: 0, 0 or 1."""
    loss = (("density", "seed"), np.tile(np.arange(3.0), (900, 1)))
    results = xr.Dataset({"loss": loss}, {"density": range(900), "seed": range(3)})
    kept = tm.mean_without_worst(results, "loss", of=2)["loss"]
    assert set(kept.values) == {0, 1}
    assert abs(kept.mean() - 1 / 3) < 4 * (2 / 9 / 900) ** 0.5


def test_an_output_with_the_name_of_a_dimension_labels_it(results):
    assert results["curve"].dims[-1] == "step"
    np.testing.assert_array_equal(results["step"], range(5))
    assert "step" not in results.data_vars


def test_parameters_come_back_as_the_cell_returned_them(results):
    """The parameters have no padding: their shapes are those that the model starts with."""
    for hidden, size in SIZES.items():
        model = tm.ReLUOutput(hidden)
        params = tm.params(results.sel(hidden=hidden, density=0.1, seed=1))
        start = model.init(jax.random.key(0), jnp.zeros(4))["params"]
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, dict(start))
        x = jnp.arange(4.0)
        hidden_by_hand = params["weights"] @ x
        np.testing.assert_allclose(
            tm.activations(model, params, x)["hidden"], hidden_by_hand, rtol=1e-5
        )
        assert hidden_by_hand.shape == (size,)


def test_nested_parameters_survive_a_file(tmp_path):
    tree = {"encoder": {"kernel": jnp.ones((2, 3)), "bias": (jnp.zeros(2), jnp.ones(1))}}
    results = tm.sweep(lambda key: {"params": tree}, progress=False)
    results.to_netcdf(tmp_path / "nested.nc", engine="h5netcdf")
    loaded = xr.load_dataset(tmp_path / "nested.nc", engine="h5netcdf")
    xr.testing.assert_identical(loaded, results)
    encoder = tm.params(loaded.sel(seed=0))["encoder"]
    np.testing.assert_array_equal(encoder["kernel"], tree["encoder"]["kernel"])
    np.testing.assert_array_equal(encoder["bias"]["1"], [1])


@pytest.mark.parametrize("name", ["params.weights", "params.bias"])
def test_padding_is_recorded_and_is_no_divergence(results, name):
    lengths = results[name].coords.get("hidden_dimension_size")
    assert results.attrs["diverged_cells"] == 0
    if name == "params.bias":
        assert "hidden_dimension" not in results[name].dims
        return
    np.testing.assert_array_equal(lengths, [2, 5])
    missing = results[name].isnull()
    place = xr.DataArray(range(5), dims="hidden_dimension")
    xr.testing.assert_equal(
        missing, (place >= lengths).broadcast_like(missing).transpose(*missing.dims)
    )


def test_a_measure_of_each_model_is_that_of_the_model_alone(results):
    weights = results["params.weights"]
    measured = tm.apply(geometry.feature_dimensionality, weights)
    assert measured.dims == ("hidden", "density", "seed", "feature")
    for hidden, size in SIZES.items():
        for density in (0.3, 0.1):
            one = {"hidden": hidden, "density": density, "seed": 3}
            alone = geometry.feature_dimensionality(jnp.asarray(weights.sel(one).values[:size]))
            np.testing.assert_allclose(measured.sel(one), alone, rtol=1e-5)


def test_what_changes_its_length_is_padded_and_named_again(results):
    norms = tm.apply(lambda w: jnp.sum(w**2, axis=1), results["params.weights"])
    assert norms.dims[-1] == "hidden_dimension"
    np.testing.assert_array_equal(norms["hidden_dimension_size"], [2, 5])
    np.testing.assert_array_equal(
        norms.isnull().sum("hidden_dimension"), [[[3] * 2] * 2, [[0] * 2] * 2]
    )
    # The sum over a model is therefore the sum over its own numbers, without the padding.
    total = tm.apply(jnp.sum, norms)
    np.testing.assert_allclose(
        total, (results["params.weights"] ** 2).sum(["hidden_dimension", "feature"]), rtol=1e-5
    )


def test_arrays_and_numbers_are_matched_by_their_dimensions(results):
    def loss(weights, bias, density):
        return density * jnp.sum(weights) + jnp.sum(bias)

    measured = tm.apply(loss, results["params.weights"], results["params.bias"], results.density)
    by_hand = results.density * results["params.weights"].sum(["hidden_dimension", "feature"])
    by_hand = by_hand + results["params.bias"].sum("feature")
    np.testing.assert_allclose(measured, by_hand.transpose(*measured.dims), rtol=1e-4)
    assert set(measured.coords) == {"hidden", "density", "seed"}


class Two(NamedTuple):
    largest: jax.Array
    count: jax.Array


def test_several_results_are_a_dataset_and_a_diverged_model_is_nan():
    weights = np.arange(24.0).reshape(2, 3, 4)
    weights[1, 0, 0] = np.nan
    array = xr.DataArray(weights, dims=("seed", "hidden", "feature"), coords={"seed": [5, 6]})
    measured = tm.apply(
        lambda w: Two(w.max(0), jnp.sum(w > 1)), array, model_dims=("hidden", "feature")
    )
    assert measured["largest"].dims == ("seed", "feature")
    np.testing.assert_array_equal(measured["largest"].sel(seed=5), [8, 9, 10, 11])
    np.testing.assert_array_equal(measured["count"], [10, np.nan])
    renamed = tm.apply(
        lambda w: w.max(0), array, model_dims=("hidden", "feature"), dims=("direction",)
    )
    assert renamed.dims == ("seed", "direction")


def _reversed(results):
    return results.isel(hidden_dimension=slice(None, None, -1))


def test_truth_values_of_models_of_different_size_can_be_saved(results, tmp_path):
    """Truth values become 1 and 0, and missing ones NaN."""
    positive = tm.apply(lambda w: w > 0, results["params.weights"])
    positive.to_netcdf(tmp_path / "positive.nc")
    weights = results["params.weights"]
    np.testing.assert_array_equal(positive, (weights > 0).where(weights.notnull()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: tm.apply(jnp.sum, r["params.weights"].drop_attrs()), "model_dims="),
        (lambda r: tm.apply(jnp.sum), "no array"),
        (lambda r: tm.apply(jnp.sum, r["params.bias"].isel(hidden=[])), "without any model"),
        (lambda r: tm.apply(lambda b: None, r["params.bias"]), "returns nothing"),
        (lambda r: tm.apply(lambda b: {"seed": b}, r["params.bias"]), "'seed' is a dimension"),
        (
            lambda r: tm.apply(lambda b: b, r["params.bias"], dims=("seed",)),
            "'seed' is a dimension",
        ),
        (lambda r: tm.params(_reversed(r).sel(hidden=2)), "numbers beyond its true length 2"),
        (lambda r: tm.apply(jnp.sum, _reversed(r)["params.weights"]), "beyond its true length"),
        (lambda r: tm.apply(jnp.sum, r["params.bias"], model_dims=("nothing",)), "'nothing' is no"),
        (lambda r: tm.apply(jnp.sum, r["params.bias"], dims=("a",)), "dimensions of its own"),
        (lambda r: tm.params(r.sel(density=0.1, seed=1)), "padded along .*: select one hidden"),
        (lambda r: tm.params(r, "curve"), "no output 'curve' holds.*params"),
    ],
)
def test_bad_input_names_the_value_and_the_remedy(results, call, message):
    with pytest.raises(InputError, match=message) as error:
        call(results)
    assert "\n" not in str(error.value)


def test_the_label_of_a_dimension_of_its_own_is_no_number_per_cell(results):
    """The curve has `step` among its coordinates, and is still many numbers per cell."""
    with pytest.raises(InputError, match="not one number per cell"):
        tm.best_of(results, "curve")


def test_apply_computes_in_double_precision_if_asked_to():
    numbers = xr.DataArray(np.geomspace(0.1, 1, 5), dims="density")
    doubled = tm.apply(lambda p: p**2 / 3, numbers, model_dims=(), float64=True)
    np.testing.assert_allclose(doubled, numbers**2 / 3, rtol=1e-15)
    assert doubled.dtype == np.float64
    single = tm.apply(lambda p: p**2 / 3, numbers, model_dims=())
    assert single.dtype == np.float32
