"""A claim that ignores the results is found, and one that measures them is not."""

import types

import mutations
import numpy as np
import xarray as xr

import toymodels as tm

SHARE = tm.finding("measured here")
RESULTS = xr.Dataset(
    {
        "share": ("seed", np.array([0.2, 0.5, 0.9])),
        "hit": ("seed", [True] * 3),
        "shape": ("seed", ["line", "ring", "ring"]),
        "number": 7,
    }
)


def names(claims):
    """Return the statements of the claims that no mutation of `RESULTS` breaks."""
    loaded = types.SimpleNamespace(claims=claims)
    return [claim.statement for claim in mutations.unbreakable(loaded, RESULTS)]


def test_only_claims_that_no_change_breaks_are_named():
    def claims(results):
        yield tm.near("A constant.", 1, 1, SHARE, within=0)
        yield tm.at_least("A share is positive or 0.", 0, (results.share**2).min(), SHARE)
        yield tm.at_most("A share is at most 1.", 1, results.share.max(), SHARE)
        yield tm.near("The order matters.", 0.9, results.share[-1], SHARE, within=0)
        yield tm.near("Seven.", 7, results.number, SHARE, within=0)
        yield tm.near("Two rings.", 2, (results["shape"] == "ring").sum(), SHARE, within=0)
        yield tm.near("All hit.", 1, results.hit.mean(), SHARE, within=0)
        yield tm.at_least("A claim that fails at once is not counted.", 2, 1, SHARE)

    # NaN breaks even the second one.
    assert names(claims) == ["A constant."]


def test_results_that_stop_the_claims_break_none():
    def claims(results):
        if not (results.share == RESULTS.share).all():
            raise ValueError
        yield tm.at_least("A claim.", 0, results.share.min(), SHARE)

    assert names(claims) == ["A claim."]
