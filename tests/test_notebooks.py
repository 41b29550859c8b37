"""The notebooks run as they are and print what they show; their numbers are asserted in them."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def words(text):
    """Return the words of a text without its numbers, whose last digits depend on the processor."""
    return re.sub(r"[-+]?\d[\d.e+-]*|[][]", " ", text).split()


@pytest.mark.as_users_compile  # they train for minutes if XLA optimises nothing
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_and_prints_what_is_shown(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("".join(cell["source"]), path.name, "exec"), names)
            shown = ["".join(output.get("text", "")) for output in cell["outputs"]]
            assert words(printed.getvalue()) == words("".join(shown))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_of_code_installs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first = next(cell for cell in cells if cell["cell_type"] == "code")
    assert "".join(first["source"]).startswith("# %pip install")
    assert any(
        output.get("data", {}).get("image/png") for c in cells for output in c.get("outputs", [])
    )
