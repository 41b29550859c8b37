"""Build the documentation with `make docs`. It needs no network, and neither do its pages.

The root of the sources is the repository, so that a link from one page to another is right on the
site and in the repository alike. The README is the front page.
"""

import gc
import os
import sys
import typing
from pathlib import Path

# Pages are millions of nodes, and a quarter of the time went into looking for garbage.
gc.set_threshold(100_000, 20, 20)

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]
os.environ["EAGER_IMPORT"] = "1"  # names load on first use, and autodoc wants them all
os.environ.setdefault("JAX_PLATFORMS", "cpu")
typing.GENERATING_DOCUMENTATION = "toymodels"  # jaxtyping writes short names if it is there

import toymodels  # noqa: E402

project = html_title = "toymodels"
release = version = toymodels.__version__
root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/**.md",
    "docs/**.ipynb",
    "figures/*.md",
]
exclude_patterns = [
    *(".*", "dist", "results", "site", "experiments", "tests", "toymodels"),
    "docs/navigation.md",
]

extensions = [
    "myst_parser",  # pages in Markdown
    "sphinx.ext.autodoc",  # the reference, from docstrings
    "sphinx.ext.napoleon",  # with sections such as "Args:"
    "docstrings",
    "mathematics",
    "notebooks",
    "pages",
    "links",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
default_role = "py:obj"  # `name` is a link if the reference has the name, and code otherwise
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
toc_object_entries_show_parents = "hide"

# Names of other libraries become links if `make docs ONLINE=1` may ask for their lists of names.
if os.environ.get("ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "flax": ("https://flax-linen.readthedocs.io/en/latest", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "optax": ("https://optax.readthedocs.io/en/latest", None),
        "xarray": ("https://docs.xarray.dev/en/stable", None),
    }

html_theme = "furo"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_domain_indices = False
