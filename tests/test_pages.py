"""The pages of a folder of figures say which claims hold and which fail."""

import json

import pytest

from toymodels.errors import InputError
from toymodels.experiment import pages
from toymodels.experiment.claims import Claim, Kind
from toymodels.experiment.pages import Record


def claim(expected, measured, *, kind=None, **rest):
    return Claim("Statement.", "source", expected, measured, kind=kind, **rest)


def record(*claims, **rest):
    return Record("figure", claims, **rest)


def write(folder, *claims, name="figure", **rest):
    contents = {"experiment": name, "claims": [claim.to_json() for claim in claims], **rest}
    (folder / f"{name}.json").write_text(json.dumps(contents))


def test_kinds_are_counted_apart():
    group = [
        claim(1, 1, kind=Kind.PAPER),
        claim(1, 2, kind=Kind.PAPER),
        claim(1, 1, kind=Kind.IDENTITY),
        claim(1, 2),
    ]
    figures = {"figure": record(*group)}
    assert pages.count(group) == {"paper": (1, 2), "identity": (1, 1), "unlabelled": (0, 1)}
    assert pages.total(figures) == (
        "2 of 4 claims hold: 1 of 2 numbers of papers, 1 of 1 identities, 0 of 1 unlabelled."
    )
    page = pages.all_claims(figures)
    assert pages.total(figures) in page
    assert page.count("| paper |") == 2


def test_a_threshold_of_ours_is_said():
    page = pages.all_claims({"figure": record(claim(1, 1, threshold="Ours, because so."))})
    assert "source Threshold: Ours, because so." in page


def test_the_page_marks_what_fails(tmp_path):
    write(tmp_path, claim(1, 1), claim(1, 2))
    page = pages.all_claims(pages.read(tmp_path))
    assert "1 of 2 claims hold" in page
    assert page.count("| pass |") == 1
    assert page.count("| **FAIL** |") == 1


def test_the_gallery_counts_the_claims_of_each_figure_by_kind():
    records = {"figure": record(claim(1, 1), claim(1, 2)), "sure": record(claim(1, 1))}
    page = pages.gallery(records, {})
    assert "2 of 3 claims hold: 2 of 3 unlabelled." in page
    head, _, *rows = [line for line in page.splitlines() if line.startswith("|")]
    assert head == "| figure | claims that hold | unlabelled |"
    assert rows == [
        "| [figure](#figure) | [1 of 2](CLAIMS.md#figure) | 1 of 2 |",
        "| [sure](#sure) | [1 of 1](CLAIMS.md#sure) | 1 of 1 |",
    ]


def test_the_page_of_findings_has_what_was_found_here_and_nothing_else():
    found = claim(1, 2, kind=Kind.FINDING)
    page = pages.findings({"figure": record(claim(1, 1), found), "other": record(claim(1, 1))})
    assert page.count("\n* ") == 1
    assert "* Statement. Measured: 2, expected: 1. **This claim fails.** *Source.*" in page
    assert "## other" not in page


def test_the_page_of_findings_leaves_out_a_source_that_only_repeats_its_head():
    found = Claim("Statement.", "first measured here", 1, 1, kind=Kind.FINDING)
    after = Claim("Other.", "found here, after Elhage et al. (2022)", 1, 1, kind=Kind.FINDING)
    page = pages.findings({"figure": record(found, after)})
    assert "* Statement. Measured: 1, expected: 1.\n" in page
    assert "* Other. Measured: 1, expected: 1. *Found here, after Elhage et al. (2022).*" in page


def test_a_source_that_begins_with_a_name_of_code_keeps_its_spelling():
    found = Claim("Statement.", "toymodels.theory, by hand", 1, 1, kind=Kind.FINDING)
    assert "*toymodels.theory, by hand.*" in pages.findings({"figure": record(found)})


DOCSTRING = '''"""A title.

Claim      Two lines
           of a claim.
Selection: the best.

The end of the text is not shown.
"""'''


def test_the_gallery_shows_each_figure_with_its_claim_and_what_fails(tmp_path):
    file = tmp_path / "figure.py"
    file.write_text(DOCSTRING)
    records = {
        "figure": record(claim(1, 1), claim(1, 2), scale="default", seconds=61.4),
        "figure_paper": record(claim(1, 1), scale="paper"),
        "figure_steps=5": record(claim(1, 1), scale="default"),
    }
    page = pages.gallery(records, {"figure": file})
    first, second, third = page.split("\n## ")[1:]
    assert first == (
        "figure\n\n![figure](figure.png)\n\n**A title.**\n\n*Claim.* Two lines of a claim.\n\n"
        "*Selection.* the best.\n\n*Made by* `toymodels run figure` in 61 seconds.\n\n"
        "[1 of 2 claims hold.](CLAIMS.md#figure) These fail:\n\n"
        "* Statement. Measured: 2, expected: 1.\n"
    )
    assert "`toymodels run figure --paper`." in second
    assert "None fails." in second
    assert "`toymodels run figure` with `steps=5`." in third


@pytest.mark.parametrize(
    ("seconds", "processor_seconds", "estimate"),
    [(None, None, None), (61.4, None, 61.4), (300.0, 61.4, 61.4), (61.4, 100.0, 61.4)],
)
def test_the_estimate_is_the_shorter_of_both_times(seconds, processor_seconds, estimate):
    made = record(claim(1, 1), seconds=seconds, processor_seconds=processor_seconds)
    assert made.estimate == estimate


def test_pages_with_a_number_that_is_missing_are_written_once(tmp_path):
    write(tmp_path, claim(1, float("nan")))
    pages.write(tmp_path)  # NaN is not equal to itself: this ends all the same
    assert "0 of 1 claims hold" in (tmp_path / "README.md").read_text()


def test_the_pages_are_written_and_a_page_of_a_person_stays(tmp_path):
    write(tmp_path, claim(1, 1), name="nobody's")
    pages.write(tmp_path)
    assert "1 of 1 claims hold" in (tmp_path / "README.md").read_text()
    assert "1 of 1 claims hold" in (tmp_path / "CLAIMS.md").read_text()
    (tmp_path / "README.md").write_text("# My figures\n")
    pages.write(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# My figures\n"


def test_files_of_others_are_left_alone(tmp_path):
    write(tmp_path, claim(1, 1))
    for name, text in {"list": "[1, 2]", "number": "3", "other": '{"claims": 3}'}.items():
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / ".hidden.json").write_text("half a file")
    assert pages.read(tmp_path) == {"figure": record(claim(1, 1))}


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
    write(tmp_path, claim(1, 1))
    (tmp_path / "broken.json").write_bytes(text)
    with pytest.warns(UserWarning, match="broken.json is left out"):
        assert pages.read(tmp_path) == {"figure": record(claim(1, 1))}


@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_the_rest_of_a_page_stays(tmp_path, line):
    page = tmp_path / "page.md"
    page.write_bytes(f"é{line}<!-- claims -->{line}old{line}<!-- /claims -->{line}end".encode())
    pages.insert("new\n", page)
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
        pages.insert("new\n", page)
    assert text is None or page.read_bytes() == text
