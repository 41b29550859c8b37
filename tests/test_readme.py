"""The code of the README runs in its order, and the table of claims is that of the figures."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from toymodels.experiment import pages

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
HOUSE = (ROOT / "docs" / "house.md").read_text()


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.filterwarnings("ignore:.*diverged:UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_python_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        # The sweeps of the page, shorter.
        quick = re.sub("steps=2_000, batch=(1024|256)", "steps=20, batch=16", block)
        quick = quick.replace("steps=2_000,\n        batch=1024", "steps=20, batch=16")
        quick = quick.replace("tm.Bench(", "tm.Bench(num_seeds=1, examples=64, ")
        quick = quick.replace("tm.Ladder(", "tm.Ladder(num_seeds=1, examples=512, ")
        quick = quick.replace("batch=256", "batch=16").replace(", 12)", ", 2)")
        exec(compile(quick, page.name, "exec"), names)
    if "results" in names:
        assert names["results"].data_vars


def test_every_link_of_a_page_leads_to_a_file():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in link and not link.endswith("moving_pentagon.gif"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_python_block_for_contributors_runs():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 5
    exec(compile("\n".join(blocks), "CONTRIBUTING.md", "exec"), {})


def test_the_number_of_claims_is_current():
    counted = README.split("<!-- claims -->\n")[1].split("<!-- /claims -->")[0]
    expected = pages.total(pages.read(ROOT / "figures"))
    assert counted == f"{expected}\n", "run: toymodels claims figures README.md"


def test_the_pages_of_the_figures_are_current():
    """The gallery has every figure, with the docstring of its experiment, and stays small."""
    records = pages.read(ROOT / "figures")
    experiments = {path.stem: path for path in (ROOT / "experiments").rglob("*.py")}
    gallery = pages.gallery(records, experiments)
    assert (ROOT / "figures" / "README.md").read_text() == gallery, "run: toymodels claims"
    assert (ROOT / "figures" / "CLAIMS.md").read_text() == pages.all_claims(records)
    assert (ROOT / "figures" / "FINDINGS.md").read_text() == pages.findings(records)
    assert len(gallery) < 1500 * len(records)


def test_the_map_names_every_module():
    for path in (ROOT / "toymodels").glob("*.py"):
        if path.name not in ("__init__.py", "checks.py", "errors.py", "progress.py"):
            assert f"  {path.name}" in HOUSE, path.name


def test_plain_make_prints_its_targets():
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    printed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: help (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert re.findall(r"^make ([\w-]+) ", printed, re.MULTILINE) == phony[1].split()


def test_the_commands_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)`", README):
        assert f"\n{target}:" in makefile
