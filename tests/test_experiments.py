"""Every experiment runs at smoke scale, and the command gives one line for bad input."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import jax
import jaxtyping
import pytest
import xarray as xr

from toymodels import cli
from toymodels.experiment import claims

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))


@contextlib.contextmanager
def as_for_users():
    """Lift the strict rules of tests, as in a process of a user, whose start takes seconds."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
            warnings.simplefilter("default")
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def command(monkeypatch, capsys):
    """Return a function that gives the command its words in a folder, here in this process."""

    def run(*words, folder, expect=0):
        monkeypatch.chdir(folder)
        capsys.readouterr()
        status = 0
        with as_for_users():
            try:
                cli.main([str(word) for word in words])
            except SystemExit as stop:
                status = stop.code
        written = capsys.readouterr()
        assert status == expect, written.err + written.out
        return written

    return run


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_smoke_scale_makes_figure_claims_and_results(path, tmp_path, command):
    command("run", path, "--smoke", folder=tmp_path)
    name = f"{path.stem}_smoke"
    folder = tmp_path / "results"
    record = json.loads((folder / f"{name}.json").read_text())
    assert record["experiment"] == path.stem
    assert record["claims"]
    assert all(claim["kind"] for claim in record["claims"])  # none is counted as unlabelled
    assert {"config", "versions", "commit", "seconds"} <= record.keys()
    assert (folder / f"{name}.png").stat().st_size > 5000
    assert (folder / f"{name}.svg").read_text().startswith("<?xml")
    assert "## " + name in (folder / "CLAIMS.md").read_text()
    xr.load_dataset(folder / f"{name}.nc", engine="h5netcdf")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_committed_figure_belongs_to_the_file(path):
    """Figures and claims are those of the defaults in the file, and every claim is shown."""
    from toymodels import experiment

    committed = ROOT / "figures" / f"{path.stem}.json"
    if not committed.exists():
        pytest.skip("a draft: its figure is not committed yet")
    record = json.loads(committed.read_text())
    loaded = experiment.load(path)
    defaults = json.loads(json.dumps(experiment.flat(loaded.scales["default"])))
    assert record["config"] == defaults
    for file in (ROOT / "figures").glob(f"{path.stem}*"):
        limit = 100_000 if file.suffix == ".json" else 300_000
        assert file.stat().st_size < limit, file
    for claim in record["claims"]:
        assert claims.Claim.from_json(claim).holds == claim["holds"]


def test_the_tests_accept_a_new_experiment_at_once(tmp_path, command):
    """A new experiment has a claim and a smoke scale, and is a draft without a figure."""
    shutil.copytree(
        ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "experiments").mkdir()
    command("new", "experiments/my_idea.py", folder=tmp_path)
    assert len((tmp_path / "experiments/my_idea.py").read_text().splitlines()) <= 80
    assert "draft" in command("list", folder=tmp_path).out
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "my_idea"]
    files = ["tests/test_experiments.py", "tests/test_experiment_claims.py"]
    finished = subprocess.run(
        [sys.executable, *words, *files], cwd=tmp_path, capture_output=True, text=True
    )
    assert "2 passed, 1 skipped" in finished.stdout, finished.stdout


def test_a_new_experiment_runs_with_its_flags(tmp_path, command):
    command("new", "my_idea.py", folder=tmp_path)
    flags = ("--steps", "20", "--num-seeds", "2", "--densities", "0.5", "0.1")
    command("run", "my_idea.py", *flags, folder=tmp_path, expect=3)  # too short for its claim
    name = "my_idea_densities=0.5,0.1_num_seeds=2_steps=20"
    record = json.loads((tmp_path / f"results/{name}.json").read_text())
    changed = {"densities": [0.5, 0.1], "num_seeds": 2, "steps": 20}
    assert record["config"] == {**changed, "batch": 1024, "learning_rate": 0.01}
    results = xr.load_dataset(tmp_path / f"results/{name}.nc", engine="h5netcdf")
    assert dict(results.loss.sizes) == {"density": 2, "seed": 2}
    # The file is a program, too.
    subprocess.run(
        [sys.executable, "my_idea.py", "--smoke"], cwd=tmp_path, check=True, capture_output=True
    )
    help_text = command("run", "my_idea.py", "--help", folder=tmp_path).out
    assert "--num-seeds" in help_text
    again = command("new", "my_idea.py", folder=tmp_path, expect=2)
    assert "exists" in again.err


def test_a_failing_claim_fails_the_command(tmp_path, command):
    experiment = tmp_path / "wrong.py"
    experiment.write_text(
        textwrap.dedent(
            """
            import dataclasses, xarray as xr, toymodels as tm
            @dataclasses.dataclass(frozen=True)
            class Config:
                two: float = 2.0
            def run(config): return xr.Dataset({"two": config.two})
            def claims(results):
                two = float(results.two)
                return [tm.Claim("two is 3", "nobody", 3.0, two, kind=tm.Kind.FINDING)]
            """
        )
    )
    command("run", "wrong.py", folder=tmp_path, expect=3)
    command("claims", folder=tmp_path, expect=3)
    command("run", "wrong.py", "--two", "3", "--out", "other", folder=tmp_path)
    assert "1 of 1 claims hold" in command("claims", "other", folder=tmp_path).out
    # The number of claims goes into a page anywhere.
    page = tmp_path / "pages" / "page.md"
    page.parent.mkdir()
    page.write_text("<!-- claims -->\n<!-- /claims -->\n")
    command("claims", "other", page, folder=tmp_path)
    assert "1 of 1 claims hold: 1 of 1 new findings." in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "no command 'frobnicate'"),
        (["run"], "required: NAME"),
        (["run", "missing.py"], "missing.py is not a Python file"),
        (["run", "no_run.py"], "no_run.py has no run"),
        (["run", "no_config.py"], "no_config.py has no Config"),
        (["run", "plain_config.py"], "not a dataclass"),
        (["run", "complete.py", "--paper"], "runs at one scale of: default"),
        (["run", "complete.py"], "density is 2, outside (0, 1]"),
        (["run", "introduction", "--steps", "-5"], "steps is -5: give a whole number, 1 or more"),
        (["list", "nowhere"], "nowhere is not a folder"),
        (["claims", "."], "no claims in ."),
        (["new", "idea.txt"], "path of a Python file"),
        (["new", "missing_folder/idea.py"], "missing_folder"),
    ],
)
def test_bad_input_gets_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    config = "import dataclasses\n@dataclasses.dataclass\nclass Config: pass\n"
    run = "def run(config):\n    import toymodels as tm\n"
    sweep = "    return tm.sweep(cell, axes={'density': [2.0]})\n"
    cell = (
        "    def cell(key, *, density):\n"
        "        return {'x': tm.SparseUniform(2, density).sample(key, 3)}\n"
    )
    files = {
        "no_run.py": config,
        "no_config.py": run + "    pass\n",
        "plain_config.py": "class Config: pass\n" + run + "    pass\n",
        "complete.py": config + run + cell + sweep,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    *progress, error = capsys.readouterr().err.splitlines()
    assert message in error
    assert all(line.endswith(": tracing") for line in progress)


def test_list_shows_every_experiment(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    cli.main(["list"])
    shown = capsys.readouterr().out
    assert all(path.stem in shown for path in EXPERIMENTS)


@pytest.mark.as_users_compile  # the time of a block matters
def test_ctrl_c_saves_what_was_finished(tmp_path):
    file = ROOT / "experiments" / "phase_diagram.py"
    # A shell's background jobs, and so their children, ignore Ctrl-C: a test may be one.
    start = "signal.signal(signal.SIGINT, signal.default_int_handler); cli.main()"
    running = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import signal; from toymodels import cli; {start}",
            "run",
            str(file),
            "--num-seeds",
            "4",
        ],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert running.stderr is not None
    for line in running.stderr:
        if " cells, " in line:  # a tenth is done
            break
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 130, errors
    assert "cells finished" in errors
    partial = xr.load_dataset(
        tmp_path / "results/phase_diagram_num_seeds=4.partial.nc", engine="h5netcdf"
    )
    finished = int(partial["norm"].notnull().sum())
    assert 0 < finished < partial["norm"].size
    assert f"{finished} of {partial['norm'].size}" in errors


def test_a_run_that_was_killed_goes_on_from_its_store(tmp_path, command):
    experiment = str(ROOT / "experiments" / "phase_diagram.py")
    flags = ("--smoke", "--store", "kept.db")
    first = command("run", experiment, *flags, folder=tmp_path)
    again = command("run", experiment, *flags, folder=tmp_path)
    progress = r"\d+ of \d+ cells, "
    assert re.search(progress, first.err)
    assert not re.search(progress, again.err)  # nothing was left to run
    results = xr.load_dataset(tmp_path / "results/phase_diagram_smoke.nc", engine="h5netcdf")
    assert results["norm"].notnull().all()
    kept = command("store", "kept.db", folder=tmp_path).out
    cells = results["norm"].size + results["free_norm"].size  # of two sweeps
    assert f"{cells} cells are whole, 0 were damaged" in kept
    command("store", "missing.db", folder=tmp_path, expect=2)


def test_an_experiment_that_takes_no_store_says_so(tmp_path, command):
    experiment = str(ROOT / "experiments" / "introduction.py")
    refused = command("run", experiment, "--smoke", "--store", "x.db", folder=tmp_path, expect=2)
    assert "give it a keyword `store`" in refused.err
