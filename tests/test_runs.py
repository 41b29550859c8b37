"""Results of a run are never lost, and files are named by the fields that differ."""

import json
import os
import pickle
import resource
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import xarray as xr
from tiny_experiment import CLAIMS, PLOT, RUN, number_of_runs, toymodels, write

from toymodels.experiment import files, pages, saving
from toymodels.experiment.claims import Claim, Kind


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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
