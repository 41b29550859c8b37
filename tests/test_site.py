"""The documentation has every page and every public name, and `make docs` builds it."""

import ast
import importlib
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import toymodels as tm

ROOT = Path(__file__).parent.parent
EQUATION = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
REFERENCE = ROOT / "docs" / "reference"


def test_the_navigation_lists_every_page_once():
    navigation = (ROOT / "docs" / "navigation.md").read_text(encoding="utf-8")
    listed = [line for line in navigation.splitlines() if re.fullmatch(r"[\w/.]+", line)]
    pages = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/**/*.ipynb"), *ROOT.glob("figures/*.md")]
    names = {str(path.relative_to(ROOT).with_suffix("")) for path in pages}
    assert sorted(listed) == sorted(
        {*names, "CHANGELOG", "CONTRIBUTING", "SECURITY"} - {"docs/navigation"}
    )


def test_the_reference_has_every_name_of_the_package():
    documented = "".join(path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md"))
    for name in tm.__all__:
        if isinstance(getattr(tm, name), types.ModuleType):
            assert (REFERENCE / f"{name}.md").exists(), name
        else:
            assert re.search(rf":: {name}$", documented, flags=re.MULTILINE), name


def test_a_name_of_the_reference_is_found_where_the_reference_says():
    """Each part of its path is public; an attribute that an import has left behind is not."""
    paths = set()
    for page in REFERENCE.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        found = re.findall(r"^\.\. auto(\w+):: (\S+)(\n   :members:)?", text, flags=re.MULTILINE)
        # A module without members is there for its text, and no name of it is printed.
        paths |= {path for kind, path, members in found if kind != "module" or members}
    assert {"train", "toymodels.circuits", "toymodels.theory.capacity"} <= paths
    for path in paths:
        place = tm
        for name in path.removeprefix("toymodels.").split("."):
            assert name in place.__all__, path
            place = getattr(place, name)


def test_a_function_that_a_claim_gives_as_its_source_can_be_called():
    text = (ROOT / "figures" / "CLAIMS.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"toymodels\.([\w.]*\w)", text))
    assert "theory.expected_loss_correlated" in paths
    for path in paths:
        place = tm
        for name in path.split("."):
            assert name in getattr(place, "__all__", dir(place)), path
            place = getattr(place, name)


@pytest.mark.parametrize("room", ["theory", "analysis"])
def test_the_reference_has_every_name_of_a_room(room):
    text = (REFERENCE / f"{room}.md").read_text(encoding="utf-8")
    assert sorted(re.findall(rf"toymodels\.{room}\.(\w+)$", text, flags=re.MULTILINE)) == sorted(
        getattr(tm, room).__all__
    )


def equations(text):
    """The equations of a text in Markdown, which stand outside code."""
    prose = re.sub(r"```.*?```|`[^`]+`", "", text, flags=re.DOTALL)
    return [(tex, False) if tex else (block, True) for block, tex in EQUATION.findall(prose)]


def test_every_equation_can_be_drawn(monkeypatch):
    pytest.importorskip("docutils.utils.math", reason="the extra `test` installs docutils")
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    mathematics = importlib.import_module("mathematics")
    pages = [
        path for folder in (ROOT, ROOT / "docs", ROOT / "figures") for path in folder.glob("*.md")
    ]
    texts = [path.read_text(encoding="utf-8") for path in pages]
    for path in (ROOT / "toymodels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                texts.append(ast.get_docstring(node) or "")
    found = [equation for text in texts for equation in equations(text)]
    assert len(found) > 1000
    for tex, block in found:
        assert "<math" in mathematics.mathml(tex, block=block), tex


def test_the_site_is_built_without_a_warning(tmp_path):
    """A wrong link, an unknown equation and a page that loads from the network fail, too."""
    pytest.importorskip("sphinx", reason="`make docs` installs Sphinx")
    command = "sphinx -q --fail-on-warning --keep-going -c docs ."
    built = subprocess.run(
        [sys.executable, "-m", *command.split(), str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
