"""Faults of the file of an experiment, or of a command, are said in one line."""

import json
import os
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import xarray as xr
from tiny_experiment import CLAIMS, HEAD, PLOT, RUN, number_of_runs, toymodels, write

import toymodels as tm
from toymodels import experiment
from toymodels.errors import InputError
from toymodels.experiment import library


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name", ["numbers", "random", "statistics", "optax", "json", "my idea", "2.5"]
)
def test_an_experiment_may_be_named_like_a_library(name):
    module = sys.modules.get(name)
    write(RUN, CLAIMS, PLOT, name=f"{name}.py")
    assert toymodels("run", f"{name}.py") == 0
    assert sys.modules.get(name) is module
    assert Path("figures", f"{name}.json").exists()


def test_all_text_is_utf_8_in_any_locale():
    write('''__doc__ = "é"''', RUN, CLAIMS, PLOT, name="é.py")
    page = Path("page.md")
    page.write_text("é\n<!-- claims -->\n<!-- /claims -->\n", encoding="utf-8")
    program = """
import sys
from toymodels import cli
for words in (["run", "é.py"], ["list", "."], ["claims", "figures", "page.md"], ["new", "ü.py"]):
    cli.main(words)
"""
    program = program.replace("é", "\\udcc3\\udca9").replace("ü", "\\udcc3\\udcbc")
    locale = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **locale},
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr.decode()
    assert "≥ 2" in Path("figures/CLAIMS.md").read_text(encoding="utf-8")
    assert "## é\n" in Path("figures/CLAIMS.md").read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("é\n<!-- claims -->\n1 of 1 claims hold")
    assert "[é](#é)" in Path("figures/README.md").read_text(encoding="utf-8")
    assert Path("ü.py").exists()


def test_strings_are_paths():
    write(RUN)
    assert experiment.load("tiny.py").name == "tiny"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("class Config", "tiny.py, line 1 is not Python"),
        ("x = '\0'", "tiny.py is not Python"),
        (HEAD.replace(" = 2.0", "") + RUN, "Config in tiny.py has no default for two"),
        (HEAD.replace("two:", "store:") + RUN, "has a field 'store', but --store is a flag"),
        (HEAD.replace("two:", "out:") + RUN, "has a field 'out', but --out is a flag"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(text, what, capsys):
    Path("tiny.py").write_text(text)
    assert toymodels("run", "tiny") == 2
    error = capsys.readouterr().err
    assert what in error
    assert len(error.splitlines()) == 1


def test_files_that_are_not_utf_8_are_one_line(capsys):
    Path("tiny.py").write_bytes(b"x = '\xe9'")
    assert toymodels("run", "tiny") == 2
    assert "tiny.py" in capsys.readouterr().err
    assert toymodels("list", ".") == 0


def test_a_missing_scale_is_said_without_imports(capsys):
    write(RUN + "raise RuntimeError('the file was run')")
    assert toymodels("run", "tiny", "--smoke") == 2
    assert "runs at one scale of: default" in capsys.readouterr().err


def test_only_a_config_is_a_scale(capsys):
    write(RUN + "PAPER = 'a paper'\nSMOKE = Config(two=1.0)")
    assert toymodels("run", "tiny") == 0
    assert toymodels("run", "tiny", "--smoke") == 0
    assert toymodels("run", "tiny", "--paper") == 2
    assert "runs at one scale of: default, smoke" in capsys.readouterr().err
    assert number_of_runs() == 2


def test_without_claims_or_plot_nothing_is_said_of_them(capsys):
    write(RUN)
    assert toymodels("run", "tiny") == 0
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["results: results/tiny.nc"]


def test_markup_is_text(capsys):
    write('''__doc__ = "[red]title[/] [/]"''', RUN, CLAIMS.replace("two ≥", "[/] [red]two ≥"))
    assert toymodels("run", "tiny") == 0
    assert "[/] [red]two ≥ 2" in capsys.readouterr().err
    Path("tiny.py").write_text('"""[red]title[/] [/]"""')
    assert toymodels("list", ".") == 0
    assert "[red]title[/] [/]" in capsys.readouterr().out


def test_a_pipe_that_closes_is_no_error():
    for name in range(40):
        write(textwrap.dedent(RUN), name=f"experiment{name}.py")
    program = "from toymodels import cli; cli.main(['list', '.'])"
    words = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} | head -1"
    finished = subprocess.run(["bash", "-c", words], capture_output=True, text=True)
    assert finished.stderr == ""


def test_figures_are_found_beside_an_absolute_folder(tmp_path, monkeypatch, capsys):
    Path("experiments").mkdir()
    write(RUN, CLAIMS, name="experiments/tiny.py")
    assert toymodels("run", "tiny") == 0
    monkeypatch.chdir("/")
    assert toymodels("list", tmp_path / "experiments") == 0
    assert "1 of 1" in capsys.readouterr().out


def test_names_too_long_for_a_file_are_one_line(capsys):
    name = "x" * 250  # with .partial.nc too long
    write(RUN, name=f"{name}.py")
    for words in (
        ["run", name],
        ["run", "x" * 300],
        ["run", "x" * 300 + ".py"],
        ["new", "x" * 300 + ".py"],
        ["list", "x" * 300],
        ["claims", "x" * 300],
        ["draw", name, "--from", "x" * 300],
        ["copy", name, "x" * 300],
    ):
        assert toymodels(*words) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert number_of_runs() == 0


def test_copies_are_found_before_what_is_shipped(capsys):
    assert toymodels("copy", "introduction") == 0
    text = Path("introduction.py").read_text()
    assert text == (library.shipped() / "introduction.py").read_text()
    assert library.find("introduction") == Path("introduction.py")
    assert toymodels("copy", "introduction") == 2
    assert "introduction.py exists" in capsys.readouterr().err
    assert toymodels("copy", "introductoin", "elsewhere") == 2
    assert "did you mean introduction?" in capsys.readouterr().err
    assert toymodels("list") == 0
    assert "thomson" in capsys.readouterr().out


def test_a_config_inside_a_config_has_flags_of_its_own():
    inner = "@dataclasses.dataclass(frozen=True)\nclass Inner:\n    three: float = 2.0"
    head = HEAD.replace("@dataclasses", f"{inner}\n@dataclasses")
    head += "    inner: Inner = Inner()\n"
    Path("tiny.py").write_text(head + RUN.replace("config.two", "config.two + config.inner.three"))
    assert toymodels("run", "tiny", "--three", 5, "--two", 3, "--out", "here") == 0
    (file,) = Path("here").glob("*.nc")
    with xr.open_dataset(file, engine="h5netcdf") as results:
        assert results.two == 8
        assert json.loads(results.attrs["config"])["three"] == 5


def test_two_fields_of_a_config_must_not_share_a_name(capsys):
    inner = "@dataclasses.dataclass(frozen=True)\nclass Inner:\n    two: float = 2.0"
    head = HEAD.replace("@dataclasses", f"{inner}\n@dataclasses")
    Path("tiny.py").write_text(head + "    inner: Inner = Inner()\n" + RUN)
    assert toymodels("run", "tiny") == 2
    assert "Config has two fields 'two': rename one" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", ".", "..", "/"])
def test_a_folder_is_no_experiment(text):
    with pytest.raises(InputError, match="toymodels list"):
        library.find(text)


@pytest.mark.parametrize("name", ["list", "run", "draw", "claims", "copy", "new", "store"])
def test_every_command_has_help(name, capsys):
    assert toymodels(name, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: toymodels {name} ")


def test_the_version_is_that_of_the_package(capsys):
    assert toymodels("--version") == 0
    assert capsys.readouterr().out.strip() == tm.__version__


def test_a_wheel_has_the_experiments_and_says_that_it_is_typed():
    """The folder that the wheel puts into the package is where the package looks for it."""
    root = Path(__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"experiments": "toymodels/_experiments"}
    assert (root / "toymodels" / "py.typed").exists()
    assert len(library.named(root / "experiments")) > 20


def test_a_broken_figure_is_named_in_one_line(capsys):
    write(RUN, CLAIMS)
    assert toymodels("run", "tiny") == 0
    Path("figures/broken.json").write_text('{"a"')
    capsys.readouterr()
    for words in (["claims"], ["list", "."]):
        assert toymodels(*words) == 0
        shown = capsys.readouterr()
        assert "broken.json is left out" in shown.err
        assert len(shown.err.splitlines()) == 1
        assert "1 of 1" in shown.out
    assert toymodels("draw", "tiny", "--from", ".") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("page", ["page.md", "missing.md", "."])
def test_a_page_is_looked_at_before_anything_is_printed(page, capsys):
    write(RUN, CLAIMS)
    assert toymodels("run", "tiny") == 0
    Path("page.md").write_text("no marks")
    capsys.readouterr()
    assert toymodels("claims", "figures", page) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
