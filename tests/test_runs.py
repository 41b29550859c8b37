"""Results of a run are never lost, and files are named by the fields that differ."""

import json
import os
import pickle
import resource
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import tomllib
from pathlib import Path

import pytest
import xarray as xr

import toymodels as tm
from toymodels import cli, experiment
from toymodels.errors import InputError
from toymodels.experiment import files, library, pages, saving
from toymodels.experiment.claims import Claim, Kind

HEAD = """
import dataclasses, pathlib, numpy as np, xarray as xr, toymodels as tm
from toymodels import plotting
@dataclasses.dataclass(frozen=True)
class Config:
    two: float = 2.0
    words: tuple[str, ...] = ()
"""
RUN = """
def run(config):
    with open("runs.txt", "a") as runs: runs.write("x")
    return xr.Dataset({"two": config.two})
"""
CLAIMS = """
def claims(results):
    at_least, kind = tm.Bound.AT_LEAST, tm.Kind.FINDING
    return [tm.Claim("two ≥ 2", "é", 2.0, float(results.two), bound=at_least, kind=kind)]
"""
PLOT = """
def plot(results):
    figure, axes = plotting.figure()
    axes.plot([0, float(results.two)])
    return figure
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(*parts, name="tiny.py"):
    Path(name).write_text("\n".join([HEAD, *parts]), encoding="utf-8")


def toymodels(*arguments):
    """Run the command in this process, and return its exit status."""
    try:
        cli.main([*map(str, arguments)])
    except SystemExit as stop:
        return stop.code
    return 0


def number_of_runs():
    return len(Path("runs.txt").read_text()) if Path("runs.txt").exists() else 0


def test_a_rerun_leaves_an_open_file_alone():
    write(RUN.replace("config.two", "len(pathlib.Path('runs.txt').read_text())"))
    assert toymodels("run", "tiny") == 0
    with xr.open_dataset("results/tiny.nc", engine="h5netcdf") as before:
        assert toymodels("run", "tiny") == 0
        assert float(before.two) == 1
        assert float(xr.load_dataset("results/tiny.nc", engine="h5netcdf").two) == 2


@pytest.mark.parametrize(
    "obstacle", ["results", "figures", "figures/tiny.svg/x", "results/tiny.nc/x"]
)
def test_what_is_in_the_way_is_found_before_the_run(obstacle, capsys):
    write(RUN, CLAIMS, PLOT)
    Path(obstacle).parent.mkdir(parents=True, exist_ok=True)
    Path(obstacle).write_text("in the way")
    assert toymodels("run", "tiny") == 2
    assert number_of_runs() == 0
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("results/tiny.nc", xr.Dataset({"mine": 1.0}).to_netcdf(engine="h5netcdf")),
        ("results/tiny.nc", b"no netCDF at all"),
        ("figures/tiny.json", b"{}"),
        ("figures/CLAIMS.md", b"what I claim"),
    ],
)
def test_files_of_others_are_not_written_over(name, contents, capsys):
    write(RUN, CLAIMS)
    Path(name).parent.mkdir()
    Path(name).write_bytes(contents)
    before = Path(name).read_bytes()
    assert toymodels("run", "tiny") == 2
    assert f"{name} is not a file of toymodels" in capsys.readouterr().err
    assert Path(name).read_bytes() == before
    assert number_of_runs() == 0
    # Whatever else is in the folders is no concern.
    Path(name).rename(Path(name).with_stem("other"))
    assert toymodels("run", "tiny") == 0
    assert toymodels("run", "tiny") == 0
    assert Path(name).with_stem("other").read_bytes() == before


def test_every_set_of_fields_has_a_name_of_its_own():
    write(RUN, CLAIMS)
    assert toymodels("run", "tiny", "--two", "3") == 0
    assert toymodels("run", "tiny", "--two", "3", "--words", "a", "b c") == 0
    assert toymodels("run", "tiny", "--words", "a", "b c") == 0
    assert toymodels("run", "tiny", "--words", "a b", "c") == 0
    assert toymodels("run", "tiny", "--words", "x" * 300) == 0
    assert toymodels("run", "tiny", "--words", "adam", "sgd") == 0
    names = {path.name for path in Path("results").glob("*.nc")}
    assert len(names) == 6
    assert {"tiny_two=3.0.nc", "tiny_words=adam,sgd.nc"} <= names
    assert max(map(len, names)) < 120
    assert not Path("figures").exists()


def test_out_moves_everything():
    write(RUN, CLAIMS, PLOT)
    assert toymodels("run", "tiny", "--out", "elsewhere") == 0
    expected = {
        "tiny.nc",
        "tiny.json",
        "tiny.png",
        "tiny.svg",
        "CLAIMS.md",
        "FINDINGS.md",
        "README.md",
    }
    assert set(os.listdir("elsewhere")) == expected
    assert not Path("results").exists()
    assert not Path("figures").exists()


@pytest.mark.parametrize(
    ("broken", "what", "status"),
    [
        (CLAIMS + "def plot(results): return 1 / 0", "ZeroDivisionError", 1),
        ("def claims(results): return results.nothing", "AttributeError", 1),
        (CLAIMS + "def plot(results): return None", "returns NoneType: return the figure", 2),
        ("def claims(results): return [('two', 2)]", "returns ('two', 2) among others", 2),
        ("def claims(results): return None", "returns NoneType: return a list of Claim", 2),
    ],
)
def test_a_crash_after_the_run_is_mended_without_a_run(broken, what, status, capsys):
    write(RUN, broken)
    assert toymodels("run", "tiny") == status
    error = capsys.readouterr().err
    assert what in error
    command = error.partition("to go on: toymodels ")[2].splitlines()[0]
    write(RUN, CLAIMS, PLOT)
    assert toymodels(*shlex.split(command)) == 0
    assert number_of_runs() == 1
    record = json.loads(Path("figures/tiny.json").read_text())
    assert record["claims"][0]["holds"]
    assert 0 <= record["processor_seconds"] < 60
    assert Path("figures/tiny.png").exists()


def test_drawing_again_keeps_the_provenance_of_the_run():
    write(RUN, CLAIMS, PLOT)
    assert toymodels("run", "tiny") == 0
    before = json.loads(Path("figures/tiny.json").read_text())
    changed = xr.load_dataset("results/tiny.nc", engine="h5netcdf").assign_attrs(
        commit="of long ago", versions="old", seconds=123.0
    )
    changed.to_netcdf("results/tiny.nc", engine="h5netcdf")
    assert toymodels("draw", "tiny", "--format", "pdf") == 0
    after = json.loads(Path("figures/tiny.json").read_text())
    assert after == {**before, "commit": "of long ago", "versions": "old", "seconds": 123.0}
    assert Path("figures/tiny.pdf").read_bytes().startswith(b"%PDF")
    assert number_of_runs() == 1


def test_drawing_twice_gives_the_same_files():
    write(RUN, CLAIMS, PLOT)
    everything = ("--format", "png", "--format", "svg", "--format", "pdf")
    assert toymodels("run", "tiny") == 0
    assert toymodels("draw", *everything, "tiny") == 0
    before = {path: path.read_bytes() for path in Path("figures").iterdir()}
    assert len(before) == 7
    assert toymodels("draw", *everything, "tiny") == 0
    assert {path: path.read_bytes() for path in Path("figures").iterdir()} == before


def test_draw_says_what_there_is_to_draw(capsys):
    write(RUN, CLAIMS)
    assert toymodels("draw", "tiny") == 2
    assert toymodels("run", "tiny", "--two", "3") == 0
    assert toymodels("draw", "tiny") == 2
    assert "results/tiny_two=3.0.nc" in capsys.readouterr().err
    assert toymodels("draw", "tiny", "--from", "results/tiny_two=3.0.nc") == 0
    Path("results/other.nc").write_text("of another program")
    assert toymodels("draw", "tiny", "--from", "results/other.nc") == 2
    assert "other.nc cannot be read as results" in capsys.readouterr().err


def test_draw_takes_the_results_of_a_scale():
    write(RUN, CLAIMS, "SMOKE = Config(two=3.0)")
    assert toymodels("run", "tiny", "--smoke") == 0
    Path("results/tiny_smoke.json").unlink()
    assert toymodels("draw", "tiny", "--smoke") == 0
    assert Path("results/tiny_smoke.json").exists()
    assert number_of_runs() == 1


def test_results_of_another_experiment_are_not_drawn(capsys):
    write(RUN, CLAIMS)
    write(RUN, CLAIMS, name="other.py")
    assert toymodels("run", "other") == 0
    capsys.readouterr()
    assert toymodels("draw", "tiny", "--from", "results/other.nc") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "results of the experiment 'other', not of 'tiny'" in line
    assert not Path("figures/tiny.json").exists()


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        ("xr.Dataset({'two': ('x', [object()])})", "cannot be written"),
        ("xr.Dataset({'a/b': 2.0, 'two': 2.0})", "cannot be written"),
        ("xr.DataArray([1.0, 2.0])", "returns DataArray: return an xarray.Dataset"),
        ("[1.0, 2.0]", "returns list: return an xarray.Dataset"),
    ],
)
def test_what_cannot_be_saved_is_kept_in_another_form(returned, what, capsys):
    write(f"def run(config): return {returned}")
    assert toymodels("run", "tiny") == 1
    error = capsys.readouterr().err
    assert what in error
    kept = Path("results/tiny.pickle")
    assert str(kept) in error
    assert type(pickle.loads(kept.read_bytes())).__name__ in returned + "list"


def test_what_no_form_can_keep_is_said_in_one_line(capsys):
    write("def run(config): return (x for x in [])")
    assert toymodels("run", "tiny") == 2
    assert "pickle cannot keep them either" in capsys.readouterr().err.splitlines()[-1]


def test_results_that_find_no_room_are_kept_elsewhere(monkeypatch, tmp_path_factory, capsys):
    write(RUN + "    import shutil\n", CLAIMS)
    other = tmp_path_factory.mktemp("other")
    monkeypatch.setattr("tempfile.tempdir", str(other))
    # The folder goes away during the run.
    text = Path("tiny.py").read_text().replace("    return xr", "    gone()\n    return xr")
    Path("tiny.py").write_text(text + "import os\ndef gone(): os.rename('results', 'moved')\n")
    assert toymodels("run", "tiny") == 1
    command = capsys.readouterr().err.partition("to go on: toymodels ")[2].splitlines()[0]
    assert str(other) in command
    assert toymodels(*shlex.split(command)) == 0
    assert Path("figures/tiny.json").exists()


def test_run_that_returns_nothing_says_so(capsys):
    write("def run(config): pass")
    assert toymodels("run", "tiny") == 2
    assert "returns None: return the results" in capsys.readouterr().err


def test_a_full_disk_leaves_old_figures_whole():
    """The limit on the size of a file stands for the disk; a PNG of noise does not fit."""
    noise = "figure.get_axes()[0].imshow(np.random.default_rng(0).random((300, 300)))"
    write(RUN, CLAIMS, PLOT)
    assert toymodels("run", "tiny") == 0
    before = {path: path.read_bytes() for path in Path("figures").iterdir()}
    write(RUN, CLAIMS, PLOT.replace("    return", f"    {noise}\n    return"))
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
    program += "from toymodels import cli; cli.main(['run', 'tiny'])"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 1
    assert "to go on: toymodels draw" in finished.stderr
    assert {path: path.read_bytes() for path in Path("figures").iterdir()} == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 60_000
    assert toymodels("draw", "tiny") == 0


def test_runs_that_end_together_are_all_listed(tmp_path):
    """The run that comes last has seen the claims of all others."""

    def finish(name):
        record = {
            "experiment": name,
            "claims": [Claim(name, "source", 1, 1, kind=Kind.PAPER).to_json()],
        }
        files.write(tmp_path / f"{name}.json", json.dumps(record))
        pages.write(tmp_path)

    for attempt in range(5):
        names = [f"figure{attempt}{number}" for number in range(6)]
        threads = [threading.Thread(target=finish, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        page = (tmp_path / "CLAIMS.md").read_text()
        assert all(f"## {name}\n" in page for name in names)
        assert page == pages.all_claims(pages.read(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_stops_a_run_as_ctrl_c_does(number):
    before = signal.getsignal(number)
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, default)
    try:
        with pytest.raises(KeyboardInterrupt), saving.signals(signal.default_int_handler):
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == default
        signal.signal(number, signal.SIG_IGN)  # as nohup does
        with saving.signals(signal.default_int_handler):
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)


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
