"""A claim holds exactly if its number is where it should be, and survives its file."""

import inspect
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toymodels as tm
from toymodels.experiment.claims import Bound, Claim, Kind

numbers = st.floats(-1e6, 1e6)


def claim(expected, measured, tolerance=0.0, bound=Bound.NEAR, *, kind=None, **rest):
    return Claim("statement", "source", expected, measured, tolerance, bound, kind=kind, **rest)


@given(numbers, st.floats(0, 10), st.floats(-20, 20))
def test_a_claim_holds_exactly_inside_its_bound(expected, tolerance, offset):
    measured = expected + offset
    offset = measured - expected  # as rounded
    assert claim(expected, measured, tolerance).holds == (abs(offset) <= tolerance)
    assert claim(expected, measured, tolerance, Bound.AT_LEAST).holds == (offset >= -tolerance)
    assert claim(expected, measured, tolerance, Bound.AT_MOST).holds == (offset <= tolerance)


def test_nan_fails_every_claim():
    assert not any(claim(1.0, math.nan, 1e9, bound).holds for bound in Bound)


@given(
    numbers,
    numbers | st.just(math.nan),
    st.floats(0, 1),
    st.sampled_from(Bound),
    st.sampled_from([*Kind, None]),
    st.text(),
)
def test_json_keeps_everything(expected, measured, tolerance, bound, kind, threshold):
    before = claim(expected, measured, tolerance, bound, kind=kind, threshold=threshold)
    after = Claim.from_json(json.loads(json.dumps(before.to_json(), allow_nan=False)))
    assert repr(after) == repr(before)  # NaN is not equal to itself


def test_files_from_before_there_were_kinds_are_read():
    fields = claim(1, 1).to_json()
    del fields["kind"], fields["threshold"]
    assert Claim.from_json(fields) == claim(1, 1)


def test_a_claim_needs_a_kind():
    with pytest.raises(TypeError, match="kind"):
        Claim("statement", "source", 1, 1)


@pytest.mark.parametrize(("measured", "holds"), [(0.9, True), (1.1, True), (1.3, False)])
def test_near_holds_within_its_tolerance_on_both_sides(measured, holds):
    source = tm.paper("Somebody (2022)")
    claim = tm.near("A number is one.", 1, measured, source, within=0.2)
    assert claim.holds is holds
    assert (claim.kind, claim.source) == (tm.Kind.PAPER, "Somebody (2022)")


def test_one_sided_claims_hold_on_their_side_and_within_their_slack():
    source = tm.finding("first measured here")
    assert tm.at_least("A.", 1, 1.5, source).holds
    assert not tm.at_least("A.", 1, 0.9, source).holds
    assert tm.at_least("A.", 1, 0.9, source, slack=0.2).holds
    assert tm.at_most("A.", 1, 0.5, source).holds
    assert not tm.at_most("A.", 1, 1.1, source).holds
    assert tm.at_most("A.", 1, 1.1, source, slack=0.2).holds
    assert not tm.at_most("A.", 1, float("nan"), source).holds


def test_a_source_must_say_its_kind():
    untyped: Any = inspect.unwrap(tm.near)  # tests check types, users do not
    with pytest.raises(tm.InputError, match=r"tm\.paper"):
        untyped("A.", 1, 1, "Somebody (2022)", within=0)
