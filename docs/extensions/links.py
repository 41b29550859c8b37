"""Check the finished site: each link inside it leads somewhere, and it needs no network."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.errors import SphinxError

# What a browser fetches by itself, as opposed to the links that a person follows.
FETCHED = {"link": "href", "script": "src", "img": "src", "iframe": "src"}


class Page(HTMLParser):
    """Collect the anchors of a page, the addresses it links to, and those it fetches."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Look at one element."""
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.add(found["href"])
        if found.get(FETCHED.get(tag)):
            self.fetched.add(found[FETCHED[tag]])


def faults(site: Path) -> list[str]:
    """Return one line for each link that leads nowhere and for each address that is fetched."""
    paths = [path for path in site.rglob("*.html") if "live" not in path.parts]
    pages = {path.resolve(): Page(path) for path in paths}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for address in page.fetched:
            if urlsplit(address).scheme not in ("", "data"):
                found.append(f"{name} fetches {address}")
        for address in page.links | page.fetched:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else None
            if not target.exists():
                found.append(f"{name} links to {address}, which is no file")
            elif parts.fragment and anchors is not None and unquote(parts.fragment) not in anchors:
                found.append(f"{name} links to {address}, a place that is not there")
    return sorted(found)


def check(app, exception) -> None:
    """Fail the build if a link is wrong."""
    if exception is not None or app.builder.format != "html":
        return
    if found := faults(Path(app.outdir)):
        raise SphinxError("\n".join(["links are wrong:", *found]))


def setup(app):
    """Come after all other pages."""
    app.connect("build-finished", check, priority=900)
