"""The page of the explorer: its contents are the numbers of the results, and nothing else."""

import base64
import gzip
import html.parser
import json

import numpy as np
import pytest
import xarray as xr
from jaxtyping import TypeCheckError

import toymodels as tm
from toymodels.explorer import contents
from toymodels.theory.frames import regular_polygon


def results(seeds=3):
    """Two densities, three importances and some seeds of two features in one dimension."""
    rng = np.random.default_rng(0)
    shape = (2, 3, seeds)
    return xr.Dataset(
        {
            "loss": (("density", "importance", "seed"), rng.random(shape)),
            "weights": (("density", "importance", "seed", "hidden", "feature"),
                        rng.normal(size=(*shape, 1, 2))),
            "bias": (("density", "importance", "seed", "feature"), rng.normal(size=(*shape, 2))),
            "exact": (("density", "importance"), rng.random((2, 3))),
            "history": (("density", "importance", "seed", "step"), rng.random((*shape, 4))),
        },
        {"density": [0.1, 1.0], "importance": [0.1, 1.0, 10.0], "seed": np.arange(seeds),
         "step": [0, 10, 100, 1000]},
    )  # fmt: skip


class Reader(html.parser.HTMLParser):
    """A parser that collects scripts, headline, and every address that a page would load."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.loaded, self.open = {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.loaded += [attributes[name] for name in ("src", "href") if name in attributes]
        self.open = attributes.get("id", "script") if tag == "script" else tag

    def handle_data(self, data):
        if self.open:
            self.scripts[self.open] = self.scripts.get(self.open, "") + data

    def handle_endtag(self, tag):
        self.open = None


def read(page):
    """Return the description of a page, and a function that gives the array of an entry."""
    scripts = Reader(page.html).scripts
    description = json.loads(scripts["description"])
    numbers = np.frombuffer(gzip.decompress(base64.b64decode(scripts["numbers"])), "<f4")

    def array(entry):
        size = int(np.prod(entry["shape"]))
        return numbers[entry["offset"] : entry["offset"] + size].reshape(entry["shape"])

    return description, array


def by_name(entries):
    return {entry["name"]: entry for entry in entries}


def test_the_page_holds_every_number_of_the_results():
    given = results()
    description, array = read(tm.explore(given))
    entries = by_name(
        entry for part in ("numbers", "models", "features", "curves") for entry in description[part]
    )
    assert set(given) <= set(entries)
    for name in given:
        values = given[name].transpose(*entries[name]["dims"])
        np.testing.assert_array_equal(array(entries[name]), values.astype("f4"))
    assert [axis["name"] for axis in description["axes"]] == ["density", "importance", "seed"]
    assert [axis["name"] for axis in description["inner"]] == ["step"]
    assert description["best_by"] == "loss"
    assert description["left_out"] == []


def test_the_geometry_of_every_model_is_named():
    pentagon, digons = regular_polygon(5), np.array([[1, -1, 0, 0, 0], [0, 0, 1, -1, 0.0]])
    weights = xr.DataArray(
        np.stack([pentagon, digons, np.full((2, 5), np.nan)]),
        {"density": [0.1, 0.5, 1.0]}, ("density", "hidden", "feature"),
    )  # fmt: skip
    given = xr.Dataset({"weights": weights, "loss": ("density", [1.0, 2.0, 3.0])})
    description, array = read(tm.explore(given))
    entry = by_name(description["numbers"])["geometry of weights"]
    numbers = array(entry)
    assert entry["labels"][int(numbers[0])] == "pentagon"
    assert entry["labels"][int(numbers[1])] == "digon x 2, not represented"
    assert np.isnan(numbers[2])


def test_dimensions_of_other_names_are_found_or_given():
    given = results().rename(hidden="toy_hidden", feature="toy_feature")
    assert [entry["name"] for entry in read(tm.explore(given))[0]["models"]] == ["weights"]
    given = results().rename(hidden="rows", feature="columns")
    assert read(tm.explore(given))[0]["models"] == []
    named = tm.explore(given, hidden="rows", feature="columns")
    assert [entry["name"] for entry in read(named)[0]["models"]] == ["weights"]


def test_the_rows_of_a_matrix_have_any_name():
    given = results().rename(hidden="neuron")
    description, array = read(tm.explore(given))
    assert [entry["dims"][-2:] for entry in description["models"]] == [["neuron", "feature"]]
    np.testing.assert_array_equal(array(description["models"][0]), given.weights.astype("f4"))


def test_curves_alone_make_a_map_of_their_ends():
    given = results()[["history"]]
    description, array = read(tm.explore(given))
    (entry,) = description["numbers"]
    np.testing.assert_array_equal(array(entry), given.history.isel(step=-1).astype("f4"))


def test_what_cannot_be_drawn_is_listed_with_the_reason():
    given = results().assign(
        words=("density", ["low", "high"]),
        tensor=(("density", "a", "b"), np.zeros((2, 3, 3))),
        single=1.0,
    )
    left_out = dict(read(tm.explore(given))[0]["left_out"])
    assert set(left_out) == {"words", "tensor", "single"}
    assert "a, b" in left_out["tensor"]


def test_results_that_are_too_large_are_thinned_and_the_page_says_so(monkeypatch):
    given = results(seeds=64)
    monkeypatch.setattr(contents, "MAX_NUMBERS", given.nbytes // 8 // 3)
    description, array = read(tm.explore(given))
    entry = by_name(description["numbers"])["loss"]
    np.testing.assert_array_equal(
        array(entry), given.loss.isel(seed=slice(None, None, 4)).astype("f4")
    )
    assert any("every 4th value of seed" in note for note in description["notes"])


def test_names_can_neither_run_code_nor_end_an_element():
    hostile = "</script><script>alert(1)</script>"
    given = results().rename(loss=hostile)
    given.attrs["config"] = '"><img src=x onerror=alert(1)>'
    given[hostile].attrs["long_name"] = "<b>&amp;\u2028ünïcode"
    page = tm.explore(given, title=hostile)
    reader = Reader(page.html)
    assert reader.loaded == []
    assert "alert" not in reader.scripts["script"].replace(reader.scripts["description"], "")
    description, _ = read(page)
    assert hostile in by_name(description["numbers"])
    assert description["title"] == hostile


def test_a_page_loads_nothing():
    page = tm.explore(results())
    assert "default-src 'none'" in page.html
    assert Reader(page.html).loaded == []


def test_jupyter_gets_a_frame_that_holds_the_page():
    page = tm.explore(results())
    frame = page._repr_html_()
    assert html.parser.unescape(frame.split('srcdoc="')[1].split('"')[0]) == page.html


def test_a_page_is_saved_as_one_file(tmp_path):
    page = tm.explore(results())
    assert page.save(tmp_path / "page.html").read_text(encoding="utf-8") == page.html


def test_an_array_is_refused_in_one_line():
    with pytest.raises((tm.InputError, TypeCheckError), match="results"):
        tm.explore(results().loss)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (results()[["weights"]].rename(weights="w"), None),
        (xr.Dataset({"a": (("x", "y"), np.zeros((2, 2)))}), "no variable has one number"),
        (xr.Dataset(), r"no variable has one number for each cell \(variables are none"),
    ],
)
def test_bad_results_get_one_line(given, message):
    if message is None:  # the geometry is a number for each cell
        assert read(tm.explore(given))[0]["numbers"]
        return
    with pytest.raises(tm.InputError, match=message):
        tm.explore(given)
