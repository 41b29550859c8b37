"""The page of the explorer in a browser: a person clicks, types and reads.

The tests need Chromium, which no Python package brings: `apt-get install chromium` on Debian.
"""

import shutil

import numpy as np
import pytest
import xarray as xr
from jax import numpy as jnp

import toymodels as tm
from toymodels.theory.frames import regular_polygon

sync_api = pytest.importorskip("playwright.sync_api", reason="the driver of the browser is absent")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is absent: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--use-angle=swiftshader"]
        )
        yield chromium
        chromium.close()


class Watched:
    """A page that collects every error, every dialog, and every request to a network."""

    def __init__(self, browser, results, folder, *, at="", width=1300, **options):
        self.faults = []
        self.page = page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self.said)
        page.on("dialog", lambda dialog: (self.faults.append(dialog.message), dialog.dismiss()))
        page.on("request", self.asked)
        path = tm.explore(results, **options).save(folder / "page.html")
        page.goto(f"file://{path}{at}")
        page.wait_for_selector("body[data-ready]")

    def said(self, message):
        if message.type == "error":
            self.faults.append(message.text)

    def asked(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.faults.append(request.url)


@pytest.fixture
def show(browser, tmp_path):
    """Return a function that opens a page.

    At the end no page has failed, asked or loaded anything.
    """
    opened = []

    def open_page(results, **options):
        opened.append(Watched(browser, results, tmp_path, **options))
        return opened[-1].page

    yield open_page
    for each in opened:
        each.page.close()
        assert each.faults == []


@pytest.fixture(scope="module")
def shared(browser, tmp_path_factory):
    watched = Watched(browser, results(), tmp_path_factory.mktemp("page"))
    yield watched.page
    assert watched.faults == []


@pytest.fixture
def visit(shared):
    """Return a function that goes to an address on the page of `results()`, which tests share."""

    def go(address):
        shared.evaluate(
            "address => { location.hash = address; readAddress(); choose({}); }", address
        )
        return shared

    return go


def results():
    """A pentagon at low density and two digons at high density, of two lengths and two seeds."""
    digons = np.array([[1, -1, 0, 0, 0], [0, 0, 1, -1, 0.0]])
    shapes = np.stack([regular_polygon(5), digons])
    lengths = np.array([1.0, 0.8])
    weights = shapes[:, None, None] * lengths[:, None, None, None] * np.ones((2, 1, 1))
    loss = np.array([[[0.2, 0.1], [0.3, 0.4]], [[0.5, 0.6], [0.8, 0.7]]])
    history = loss[..., None] + np.array([3.0, 1.0, 0.0])
    return xr.Dataset(
        {
            "loss": (("density", "length", "seed"), loss),
            "weights": (("density", "length", "seed", "hidden", "feature"), weights),
            "exact": (("density", "length"), loss.min(axis=-1)),
            "history": (("density", "length", "seed", "step"), history),
        },
        {"density": [0.05, 0.5], "length": lengths, "seed": [7, 8], "step": [0, 10, 100]},
        {"config": '{"grid": 2}'},
    )


def fact(page, name):
    """Return the number beside a name in the table of facts."""
    row = page.locator("#facts tbody tr", has=page.get_by_text(name, exact=True))
    return row.locator("td").first.text_content()


def drawn(page, place, trace=0):
    """Return what the library draws in an element, read from its own data."""
    return page.evaluate("([id, k]) => document.getElementById(id).data[k]", [place, trace])


def click_cell(page, column, row):
    """Click the middle of a cell of a map of two by two cells."""
    page.wait_for_timeout(300)  # the picture has its final size then
    box = page.locator("#map .nsewdrag").first.bounding_box()
    page.mouse.click(
        box["x"] + box["width"] * (column + 0.5) / 2,
        box["y"] + box["height"] * (1 - (row + 0.5) / 2),
    )


def test_the_map_shows_the_best_seed_of_every_cell(visit):
    page = visit("colour=loss&x=density&y=length&seed=best")
    np.testing.assert_allclose(drawn(page, "map")["z"], [[0.1, 0.5], [0.3, 0.7]], rtol=1e-6)
    page.select_option("#seed", "mean")
    np.testing.assert_allclose(drawn(page, "map")["z"], [[0.15, 0.55], [0.35, 0.75]], rtol=1e-6)


def test_a_click_shows_the_cell_and_its_numbers(visit):
    page = visit("colour=loss&x=density&y=length&seed=best&at=0.0.0.2")
    click_cell(page, 1, 0)
    assert "density p = 1 - S 0.5, length 0.8, seed 8" in page.text_content("#here h2")
    assert fact(page, "loss") == "0.7"
    assert fact(page, "exact") == "0.7"
    assert fact(page, "geometry of weights") == "digon x 2, not represented"


def test_the_dimensionality_on_the_page_is_that_of_the_library(visit):
    page = visit("colour=loss&x=density&y=length&at=0.0.0.2")
    page.focus("#map")
    for key, cell in (("ArrowLeft", {"density": 0.05}), ("ArrowRight", {"density": 0.5})):
        page.keyboard.press(key)
        weights = results().weights.sel(cell).isel(length=0, seed=0)
        shown = page.evaluate("dimensionality(matrixAt(mainModel, withSeed(view.at)))")
        exact = tm.analysis.geometry.feature_dimensionality(jnp.asarray(weights.values))
        np.testing.assert_allclose(shown, exact, atol=1e-6)


def test_arrow_keys_walk_and_a_pinned_cell_stays(visit):
    page = visit("colour=loss&x=density&y=length&seed=0&at=0.0.0.2")
    page.focus("#map")
    page.keyboard.press("p")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # there is no further cell
    assert "0.5" in page.text_content("#here h2")
    assert "0.05" in page.text_content("#pinned h2")
    assert fact(page, "loss") == "0.5"
    # The lengths fall, so the cell above is the one before.
    page.keyboard.press("ArrowDown")
    assert "length 0.8" in page.text_content("#here h2")
    assert page.text_content("#said").startswith("density p = 1 - S 0.5, length 0.8, seed 7.")
    page.keyboard.press("p")
    assert page.locator("#pinned").is_hidden()


def test_arrow_keys_walk_before_the_first_click(visit):
    page = visit("colour=loss&x=density&y=length&seed=0&at=0.0.0.2")
    page.keyboard.press("ArrowRight")
    assert "density p = 1 - S 0.5" in page.text_content("#here h2")


def test_an_address_holds_the_view(visit):
    page = visit("colour=loss&x=length&y=density&seed=1&at=1.0.0.2")
    page.focus("#map")
    page.keyboard.press("ArrowLeft")
    address = page.evaluate("location.hash")
    said = page.text_content("#here h2")
    again = visit(address)
    assert again.text_content("#here h2") == said
    assert again.evaluate("location.hash") == address


@pytest.mark.parametrize(
    "address",
    ["colour=none&x=none&y=none&seed=99&at=999.-3.x&pinned=9.9.9.9", "at=%00", "a" * 5000],
)
def test_an_address_of_other_results_is_mended(visit, address):
    page = visit(address)
    assert page.locator("#here h2").text_content()


def test_a_slider_moves_the_cell_and_plays_to_the_end(visit):
    page = visit("colour=loss&x=density&y=length&at=0.0.0.0")
    slider = page.get_by_label("density p = 1 - S", exact=True)
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert "density p = 1 - S 0.5" in page.text_content("#here h2")
    page.get_by_label("play along step").click()
    page.wait_for_function("view.at.step === 2")


def test_a_seed_is_chosen_by_its_drawing(visit):
    page = visit("colour=loss&x=density&y=length&seed=best&at=0.0.0.2")
    page.get_by_role("button", name="seed 7: pentagon").click()
    assert "seed 7" in page.text_content("#here h2")
    assert page.locator("#seed").input_value() == "0"


def test_seeds_can_be_an_axis_of_the_map(visit):
    page = visit("colour=loss&x=density&y=seed&at=0.0.0.2")
    np.testing.assert_allclose(drawn(page, "map")["z"], [[0.2, 0.5], [0.1, 0.6]], rtol=1e-6)
    page.get_by_role("button", name="seed 8: pentagon").click()
    assert fact(page, "loss") == "0.1"


def test_one_axis_is_a_line_with_every_seed(show):
    page = show(results().isel(length=0, drop=True), at="#colour=loss&y=")
    np.testing.assert_allclose(drawn(page, "map")["y"], [0.1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(drawn(page, "map", 1)["y"], [0.2, 0.5], rtol=1e-6)


def test_the_legend_of_norm_and_superposition_tells_a_lone_feature_from_a_pair(visit):
    page = visit("colour=norm+and+superposition&x=density&y=length&feature=0")
    steps = 12
    pentagon, digon = drawn(page, "map")["z"][0]
    # The other four of a pentagon overlap by 3/2 in squares, those of a digon by 1.
    assert pentagon // steps == steps - 1
    assert digon // steps == steps - 1
    page.select_option("#feature", "4")
    assert drawn(page, "map")["z"][0][1] == 0  # the fifth feature is not represented


def test_missing_values_are_gaps(show):
    given = results()
    given.loss[0, 0] = np.nan
    given.weights[0, 0] = np.nan
    page = show(given, at="#colour=loss&x=density&y=length&at=0.0.0.2")
    assert np.isnan(drawn(page, "map")["z"][0][0])
    assert fact(page, "loss") == "missing"


def test_hostile_names_are_shown_as_they_are(show):
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'ü"
    given = results().rename(loss=hostile, density=f"d {hostile}")
    given.attrs[hostile] = hostile
    page = show(given, title=hostile, at="#x=&y=")
    assert page.text_content("#title") == hostile
    assert hostile in page.locator("#facts").text_content()
    page.select_option("#colour", hostile)
    assert page.locator("#map img, #map script").count() == 0


def test_three_hidden_dimensions_turn_and_more_are_a_graph(show):
    for hidden, kind in ((3, "scatter3d"), (4, None)):  # None stands for the plane
        weights = np.random.default_rng(0).normal(size=(2, hidden, 5))
        given = xr.Dataset(
            {
                "loss": ("density", [1.0, 2.0]),
                "weights": (("density", "hidden", "feature"), weights),
            },
            {"density": [0.1, 1.0]},
        )
        page = show(given)
        plots = page.evaluate(
            "[...document.querySelectorAll('#here .plot')].map(plot => plot.data[0].type)"
        )
        assert plots[0] == kind


def test_a_narrow_screen_has_one_column(show):
    page = show(results(), width=380)
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_ten_thousand_cells(show):
    rng = np.random.default_rng(0)
    given = xr.Dataset(
        {"loss": (("x", "y"), rng.random((100, 100))),
         "weights": (("x", "y", "hidden", "feature"), rng.normal(size=(100, 100, 2, 5)))},
        {"x": np.geomspace(0.01, 1, 100), "y": np.arange(100.0)},
    )  # fmt: skip
    page = show(given, at="#colour=loss&x=x&y=y")
    np.testing.assert_allclose(drawn(page, "map")["z"], given.loss.T.astype("f4"))
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    assert fact(page, "loss") == f"{float(given.loss[51, 50]):.4g}"
