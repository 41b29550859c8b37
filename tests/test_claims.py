"""A claim holds exactly if its number is where it should be, and survives its file."""

import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from toymodels import claims
from toymodels.claims import Bound, Claim

numbers = st.floats(-1e6, 1e6)


def claim(expected, measured, tolerance=0.0, bound=Bound.NEAR):
    return Claim("statement", "source", expected, measured, tolerance, bound)


@given(numbers, st.floats(0, 10), st.floats(-20, 20))
def test_bounds(expected, tolerance, offset):
    measured = expected + offset
    offset = measured - expected  # as rounded
    assert claim(expected, measured, tolerance).holds == (abs(offset) <= tolerance)
    assert claim(expected, measured, tolerance, Bound.AT_LEAST).holds == (offset >= -tolerance)
    assert claim(expected, measured, tolerance, Bound.AT_MOST).holds == (offset <= tolerance)


def test_nan_fails_every_claim():
    assert not any(claim(1.0, math.nan, 1e9, bound).holds for bound in Bound)


@given(numbers, numbers | st.just(math.nan), st.floats(0, 1), st.sampled_from(Bound))
def test_json_keeps_everything(expected, measured, tolerance, bound):
    before = claim(expected, measured, tolerance, bound)
    after = Claim.from_json(json.loads(json.dumps(before.to_json(), allow_nan=False)))
    assert repr(after) == repr(before)  # NaN is not equal to itself


def test_the_page_marks_what_fails(tmp_path):
    good, bad = claim(1, 1), claim(1, 2)
    (tmp_path / "figure.json").write_text(json.dumps({"claims": [good.to_json(), bad.to_json()]}))
    page = claims.markdown(claims.read(tmp_path))
    assert "1 of 2 hold" in page
    assert page.count("| pass |") == 1
    assert page.count("| **FAIL** |") == 1


def test_the_summary_counts_and_names_what_fails():
    groups = {"figure": [claim(1, 1), claim(1, 2)], "sure": [claim(1, 1)]}
    rows = claims.summary(groups, Path("figures")).splitlines()[2:]
    assert len(rows) == 2
    assert "(figures/figure.png)" in rows[0]
    assert "[1 of 2](figures/CLAIMS.md#figure) | statement: 2, expected 1" in rows[0]
    assert "[1 of 1](figures/CLAIMS.md#sure) |  |" in rows[1]
