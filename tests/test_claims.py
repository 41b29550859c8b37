"""A claim holds exactly if its number is where it should be, and survives its file."""

import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toymodels as tm
from toymodels.errors import InputError
from toymodels.experiment import claims
from toymodels.experiment.claims import Bound, Claim, Kind

numbers = st.floats(-1e6, 1e6)


def claim(expected, measured, tolerance=0.0, bound=Bound.NEAR, *, kind=None, **rest):
    return Claim("statement", "source", expected, measured, tolerance, bound, kind=kind, **rest)


@given(numbers, st.floats(0, 10), st.floats(-20, 20))
def test_bounds(expected, tolerance, offset):
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


def test_kinds_are_counted_apart():
    group = [
        claim(1, 1, kind=Kind.PAPER),
        claim(1, 2, kind=Kind.PAPER),
        claim(1, 1, kind=Kind.IDENTITY),
        claim(1, 2),
    ]
    assert claims.count(group) == {"paper": (1, 2), "identity": (1, 1), "unlabelled": (0, 1)}
    assert claims.total(group) == (
        "2 of 4 claims hold: 1 of 2 numbers of papers, 1 of 1 identities, 0 of 1 unlabelled"
    )
    page = claims.markdown({"figure": group})
    assert claims.total(group) in page
    assert page.count("| paper |") == 2
    assert "Threshold: ours, because" in claims.markdown(
        {"figure": [claim(1, 1, threshold="ours, because so")]}
    )


def test_the_page_marks_what_fails(tmp_path):
    good, bad = claim(1, 1), claim(1, 2)
    record = {"experiment": "figure", "claims": [good.to_json(), bad.to_json()]}
    (tmp_path / "figure.json").write_text(json.dumps(record))
    page = claims.markdown(claims.read(tmp_path))
    assert "1 of 2 claims hold" in page
    assert page.count("| pass |") == 1
    assert page.count("| **FAIL** |") == 1


def test_the_summary_counts_and_names_what_fails():
    groups = {"figure": [claim(1, 1), claim(1, 2)], "sure": [claim(1, 1)]}
    total, _, head, _, *rows = claims.summary(groups, Path("figures")).splitlines()
    assert total == "2 of 3 claims hold: 2 of 3 unlabelled."
    assert head == "| figure | claims that hold | unlabelled | those that fail |"
    assert len(rows) == 2
    assert "(figures/figure.png)" in rows[0]
    assert "[1 of 2](figures/CLAIMS.md#figure) | 1 of 2 | statement: 2, expected 1" in rows[0]
    assert "[1 of 1](figures/CLAIMS.md#sure) | 1 of 1 |  |" in rows[1]


def test_files_of_others_are_left_alone(tmp_path):
    record = {"experiment": "figure", "claims": [claim(1, 1).to_json()]}
    (tmp_path / "figure.json").write_text(json.dumps(record))
    for name, text in {"list": "[1, 2]", "number": "3", "other": '{"claims": 3}'}.items():
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / ".hidden.json").write_text("half a file")
    assert claims.read(tmp_path) == {"figure": [claim(1, 1)]}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b'{"experiment": "x", "claims": [{"st',
        b'{"experiment": "x", "claims": [{"statement": "x"}]}',
        b'{"experiment": "x", "claims": 3}',
    ],
)
def test_a_broken_file_is_named_and_left_out(tmp_path, text):
    record = {"experiment": "figure", "claims": [claim(1, 1).to_json()]}
    (tmp_path / "figure.json").write_text(json.dumps(record))
    (tmp_path / "broken.json").write_bytes(text)
    with pytest.warns(UserWarning, match="broken.json is left out"):
        assert claims.read(tmp_path) == {"figure": [claim(1, 1)]}


@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_the_rest_of_a_page_stays(tmp_path, line):
    page = tmp_path / "page.md"
    page.write_bytes(f"é{line}<!-- claims -->{line}old{line}<!-- /claims -->{line}end".encode())
    claims.insert("new\n", page)
    expected = f"é{line}<!-- claims -->{line}new{line}<!-- /claims -->{line}end"
    assert page.read_bytes() == expected.encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"no marks", "has no lines"),
        (b"<!-- claims -->", "has no lines"),
        (b"<!-- /claims -->\n<!-- claims -->\n", "has no lines"),
        (b"\xe9<!-- claims -->\n<!-- /claims -->", "is not UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_a_page_that_cannot_take_the_table_stays(tmp_path, text, message):
    page = tmp_path / "page.md"
    if text is not None:
        page.write_bytes(text)
    with pytest.raises(InputError, match=message):
        claims.insert("new\n", page)
    assert text is None or page.read_bytes() == text


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
