"""The page as one file: description, numbers, scripts, and the library that draws."""

import base64
import gzip
import html
import importlib.resources
import json
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from toymodels.errors import InputError
from toymodels.explorer.contents import Inner, pack

__all__ = ["Page", "explore"]

SCRIPTS = ("data", "view", "map", "cell", "main")
"""The scripts of `assets/`, in the order in which they run."""
# Nothing is loaded from anywhere; Plotly compiles some of its own functions.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)


class Page(NamedTuple):
    """An HTML page.

    Attributes:
        html: the text of the page.
    """

    html: str

    def save(self, path: str | Path) -> Path:
        """Write the page to a file, whole or not at all, and return its path."""
        from toymodels.experiment import files

        path = Path(path)
        if path.suffix not in (".html", ".htm"):
            raise InputError(f"{path} is no name of a page: give one that ends in .html")
        files.check_writable(path)
        files.write(path, self.html)
        return path

    def _repr_html_(self) -> str:
        """Return a frame that holds the page, which is what Jupyter shows."""
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" title="explorer of results" '
            'style="width: 100%; height: 900px; border: 0"></iframe>'
        )


def explore(
    results: xr.Dataset,
    *,
    title: str | None = None,
    hidden: str = "hidden",
    feature: str = "feature",
) -> Page:
    """Make a page on which a person walks through the cells of results.

    The page draws any number of a cell as a map over two axes. A click on a cell shows the
    feature vectors of its model, their Gram matrix, the dimensionality of each feature, curves,
    and every seed. The arrow keys walk through the cells, and one cell can be pinned beside
    another. The address of the page holds what it shows, so a view can be sent as a link.

    Args:
        results: the results of a sweep, or any other labelled numbers. Variables that a page
            cannot draw are listed on it with the reason.
        title: the headline; the name of the experiment or sweep if not given.
        hidden: the name of the hidden dimension of a weight matrix.
        feature: the name of its feature dimension.

    Returns:
        A page, which needs neither a server nor a network: about 5 MB for the library that draws,
        and at most 16 MB of numbers before compression. Larger results are thinned, and the page
        says so.

    Raises:
        ValueError: `results` is not a Dataset, or has no number for each cell.
        ImportError: Plotly is not installed, which `pip install 'toymodels[explorer]'` does.
    """
    _check(results)
    if title is None:
        title = str(results.attrs.get("experiment") or results.attrs.get("title") or "results")
    description, numbers = pack(results, title, Inner(hidden, feature))
    packed = base64.b64encode(gzip.compress(numbers.astype("<f4").tobytes(), mtime=0)).decode()
    assets = importlib.resources.files(__package__ or "") / "assets"
    scripts = "\n".join(
        f"<script>{(assets / f'{name}.js').read_text(encoding='utf-8')}</script>"
        for name in SCRIPTS
    )
    return Page(f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{html.escape(title)}</title>
<style>{(assets / "style.css").read_text(encoding="utf-8")}</style>
</head>
<body>
{(assets / "body.html").read_text(encoding="utf-8")}
<script type="application/json" id="description">{_json(description)}</script>
<script type="text/plain" id="numbers">{packed}</script>
<script>{_plotly()}</script>
{scripts}
</body>
</html>
""")


def _check(results: Any) -> None:
    if not isinstance(results, xr.Dataset):
        raise InputError(
            f"results is a {type(results).__name__}: give the Dataset that a sweep returns, or "
            "xarray.open_dataset(file)"
        )


def _json(value: Any) -> str:
    """Return JSON in which no text can end the element that holds it."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _plotly() -> str:
    try:
        from plotly import offline
    except ImportError as error:
        raise ImportError(
            "the explorer draws with Plotly: pip install 'toymodels[explorer]'"
        ) from error
    return offline.get_plotlyjs()
