"""The page of the atlas of failures says what its experiment has measured."""

import json
import re
from pathlib import Path

import pytest

from toymodels import experiment

ROOT = Path(__file__).parent.parent
NUMBER = re.compile(r"^\d\.\d{3}")


def rows_of_the_page():
    """The columns "it says", "true" and "off by" of each row, as numbers."""
    page = (ROOT / "docs" / "atlas.md").read_text().split("## ")[0]
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 6 and NUMBER.match(cells[2]):
            yield [float(NUMBER.match(cell)[0]) for cell in cells[2:5]]


def test_every_number_of_the_page_is_the_closed_form_and_the_measured_one():
    module = experiment.load(ROOT / "experiments" / "atlas_of_failures.py").run.__globals__
    rows = list(module["ROWS"].values())
    record = json.loads((ROOT / "figures" / "atlas_of_failures.json").read_text())
    claims = iter(record["claims"])
    page = list(rows_of_the_page())
    assert len(page) == len(rows)
    for row, (says, true, off) in zip(rows, page, strict=True):
        for shown, exact, measured in ((says, row.says, True), (true, row.true, row.truth)):
            assert shown == pytest.approx(exact, abs=5.1e-4), row
            if measured:  # and not the definition of the model
                claim = next(claims)
                assert row.score in claim["statement"]
                assert claim["measured"] == pytest.approx(exact, abs=row.within), row
        assert off == pytest.approx(abs(row.says - row.true), abs=5.1e-4), row
