"""Make what the site has beside its pages of Markdown: navigation, gallery, explorers, the demo."""

import shutil
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

import toymodels as tm
from toymodels.experiment import library, pages, saving

ROOT = Path(__file__).parents[2]

# The explorer shows these experiments, as far as `results/` has their results.
LIVE = (ROOT / "docs" / "live.txt").read_text(encoding="utf-8").split()


def saved_results():
    """Return the file of each experiment of `LIVE` that has been run."""
    found = {name: ROOT / "results" / f"{name}.nc" for name in LIVE}
    return {name: path for name, path in found.items() if path.exists()}


class Gallery(SphinxDirective):
    """Show the figures of "the paper", of "other papers" or of "no paper", as its argument says.

    Each figure has the first line of its experiment's docstring.
    """

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        """Write a grid of links to the page of all figures."""
        grid = nodes.container(classes=["gallery"])
        for name, record in pages.read(ROOT / "figures").items():
            text = library.docstring(ROOT / "experiments" / f"{record.experiment}.py")
            if reproduced(text) != self.arguments[0]:
                continue
            title = text.splitlines()[0]
            held = sum(claim.holds for claim in record.claims)
            link = nodes.reference(refuri=f"../figures/README.html#{name}")
            link += nodes.image(uri=f"/figures/{name}.png", alt=name, loading="lazy")
            size = " At the paper's own size." if record.scale == "paper" else ""
            link += nodes.Text(f"{title}{size} {held} of {len(record.claims)} claims hold.")
            grid += nodes.paragraph("", "", link)
        return [grid]


def reproduced(docstring):
    """Return what an experiment reproduces: "the paper", "other papers" or "no paper"."""
    source = library.section(docstring, "Reproduces")
    if "Elhage et al. (2022)" in source:
        return "the paper"
    return "no paper" if not source or source.startswith("No figure") else "other papers"


class Explorers(SphinxDirective):
    """List the explorers that the site has, and the commands that add the others."""

    def run(self):
        """Write one item for each experiment of `LIVE`."""
        here = saved_results()
        items = nodes.bullet_list()
        for name in LIVE:
            text = nodes.paragraph()
            if name in here:
                text += nodes.reference("", name, refuri=f"live/{name}.html")
            else:
                text += nodes.literal("", "make site")
                text += nodes.Text(f" adds {name}, whose results are not in this copy.")
            items += nodes.list_item("", text)
        return [items]


def add_navigation(app, docname, source) -> None:
    """Give the front page the table of contents, which a reader of the README does not see."""
    if docname == app.config.root_doc:
        source[0] += "\n" + (ROOT / "docs" / "navigation.md").read_text(encoding="utf-8")


def open_pages(app, doctree) -> None:
    """Let a link to an HTML page open it, where Sphinx would save a copy of it."""
    for link in doctree.findall(addnodes.download_reference):
        if link["reftarget"].endswith(".html"):
            target = link["reftarget"].removeprefix("/")
            reference = nodes.reference("", "", *link.children, refuri=target)
            link.replace_self(reference)


def finish(app, exception) -> None:
    """Add what is a whole page already, and a first page that leads to the front page."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    shutil.copy(ROOT / "docs" / "demo.html", site / "docs" / "demo.html")
    for name, path in saved_results().items():
        page = tm.explore(saving.load(path), title=name)
        (site / "docs" / "live").mkdir(exist_ok=True)
        page.save(site / "docs" / "live" / f"{name}.html")
    moved = f'<meta http-equiv="refresh" content="0; url={app.config.root_doc}.html">'
    (site / "index.html").write_text(f"<!doctype html><title>toymodels</title>{moved}\n")


def setup(app):
    """Connect all of it."""
    app.add_directive("gallery", Gallery)
    app.add_directive("explorers", Explorers)
    app.connect("source-read", add_navigation)
    app.connect("doctree-read", open_pages, priority=100)
    app.connect("build-finished", finish)
