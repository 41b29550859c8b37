"""Axes take anything that holds numbers, and refuse what cannot be labelled or kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from toymodels.errors import InputError
from toymodels.sweeps import grids


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (0.1, [0.1]),
        (np.float32(0.1), [0.1]),
        (jnp.array([0.1, 0.2]), [0.1, 0.2]),  # labels are those that one would type
        (xr.DataArray([0.1, 0.2], dims="d", coords={"d": [5, 6]}), [0.1, 0.2]),
        (xr.DataArray(0.1), [0.1]),
        ([jnp.array(0.1), np.array(2), np.int64(3)], [0.1, 2, 3]),
        (range(3), [0, 1, 2]),
        ((x for x in (1, 2.5)), [1, 2.5]),
        ([2**24, -(2**24)], [2**24, -(2**24)]),
    ],
)
def test_whatever_holds_numbers_is_an_axis(values, numbers):
    ((along, found),) = grids.Grid({"a": values}).coords.values()
    assert along == "a"
    assert found == numbers
    assert all(type(number) in (int, float) for number in found)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"a": "0.1"}, "'a' holds '0.1', which is not a number"),
        ({"a": np.ones((2, 2))}, "'a' is an array of 2 dimensions"),
        ({"a": [10**40]}, "100000000.* cannot hold"),
        ({"a": [10**400]}, "100000000.* cannot hold"),
        ({"a": [1e-50]}, "'a' holds 1e-50.* cannot hold"),
        ({"a": [1e39]}, r"'a' holds 1e\+39.* cannot hold"),
        ({"a": [2**24 + 1]}, "round to 16777216"),
        ({"a": [0.1, 0.2, 0.1]}, "'a' holds 0.1 twice"),
        ({"a": [0.0, -0.0]}, "twice"),
        ({("a", "b"): [0.1, 0.2]}, "holds 0.1: give 2 numbers for each place"),
        ({("a", "b"): [(1, 2, 3)]}, "give 2 numbers for each place"),
        ({"a": None}, "'a' holds None"),
        ({"a": np.ma.masked_equal([1.0, 2.0], 2.0)}, "'a' holds masked"),
        ({(): [()]}, r"axis is named \(\)"),
        ({"a": [True]}, "'a' holds True"),
        ({"a": [1j]}, "'a' holds 1j"),
    ],
)
def test_what_is_no_axis_is_refused_by_name(axes, message):
    with pytest.raises(InputError, match=message) as error:
        grids.Grid(axes)
    assert "\n" not in str(error.value)


def test_floats_of_64_bits_hold_more(x64):
    numbers = grids.Grid({"a": [1e-50, 1e39, 2**24 + 1]}).numbers["a"]
    np.testing.assert_array_equal(numbers, [1e-50, 1e39, 2**24 + 1])


def test_places_of_a_zipped_axis_may_share_numbers():
    coords = grids.Grid({("a", "b"): [(1, 2), (1, 3), (1, 2)]}).coords
    assert coords == {"a": ("a", [1, 1, 1]), "b": ("a", [2, 3, 2])}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.arange(1, 3), [1, 2]),
        ("relu", ["relu"]),
        (5, [5]),
        ([1, 2.5], [1, 2.5]),
        ([True, False], [True, False]),
        (xr.DataArray([1, 2], dims="h"), [1, 2]),
        ({"a": print, "b": len}, ["a", "b"]),
    ],
)
def test_labels_keep_their_type(values, labels):
    found = [label for label, _ in grids.choices("static axis 'k'", values)]
    assert found == labels
    assert [type(label) for label in found] == [type(label) for label in labels]
    np.testing.assert_array_equal(np.asarray(found).tolist(), labels)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([2, "all"], "labels of different types, 2, 'all'"),
        ([True, 2], "labels of different types"),
        ({(2, 3): 1}, r"holds \(2, 3\), which is no label"),
        ({None: 1}, "holds None"),
        ([print], "dict of label to value"),
        (print, "dict of label to value"),
        ([1, 1], "holds 1 twice"),
        ([10**40], "beyond 64 bits"),
        ([float("nan")], "holds nan, which is no label"),
        (["a\0b"], "which no file can hold"),
        ({"\ud800": 1}, "which no file can hold"),
        ([jax.random.key(0)], "which is no label"),
        ([], "is empty"),
    ],
)
def test_what_is_no_label_is_refused(values, message):
    with pytest.raises(InputError, match=f"static axis 'k' .*{message}|{message}") as error:
        grids.choices("static axis 'k'", values)
    assert "\n" not in str(error.value)
