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
    record = json.loads((ROOT / "figures" / "atlas_of_failures.json").read_text())
    claims = iter(record["claims"])
    page = list(rows_of_the_page())
    assert len(page) == len(module["SCORES"])
    for (name, (_, score)), (says, true, off) in zip(module["SCORES"].items(), page, strict=True):
        exact_says, exact_true, within = module["CLOSED_FORMS"][name]
        is_measured, _ = module["TRUTHS"][name]  # a truth is not, if it is the model's definition
        for shown, exact, measured in (
            (says, exact_says, True),
            (true, exact_true, is_measured),
        ):
            assert shown == pytest.approx(exact, abs=5.1e-4), name
            if measured:
                claim = next(claims)
                assert score in claim["statement"]
                assert claim["measured"] == pytest.approx(exact, abs=within), name
        assert off == pytest.approx(abs(exact_says - exact_true), abs=5.1e-4), name
