"""Many experiments in one command: a failure stops no other, and the exit status tells."""

import subprocess
import sys

import numpy as np
import pytest

from toymodels.experiment import many

EXPERIMENT = """
import dataclasses
import xarray as xr
import toymodels as tm

@dataclasses.dataclass(frozen=True)
class Config:
    number: float = 1.0

def run(config):
    return xr.Dataset({"inverse": 1 / config.number})

def claims(results):
    return [tm.near("The inverse of 1 is 1.", 1, results.inverse, tm.identity("1 / 1"), within=0)]
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Run `toymodels figures` in a folder of three experiments, of which one fails at once."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "good.py").write_text(EXPERIMENT)
    (folder / "wrong.py").write_text(EXPERIMENT.replace("float = 1.0", "float = 2.0"))
    (folder / "broken.py").write_text(EXPERIMENT.replace("float = 1.0", "float = 0.0"))

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "toymodels.cli", "figures", *words],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip

    run.folder = folder
    return run


def test_an_experiment_that_fails_stops_no_other(command):
    finished = command("broken", "wrong", "good")
    assert finished.returncode == 1
    assert "toymodels: broken failed; results/broken.log says why" in finished.stderr
    assert "1 of 1 claims hold" in finished.stderr
    assert "0 of 1 claims hold" in finished.stderr
    assert "ZeroDivisionError" in (command.folder / "results" / "broken.log").read_text()
    assert (command.folder / "figures" / "good.json").exists()
    # Saved results are drawn again without a run.
    (command.folder / "good.py").write_text(EXPERIMENT.replace("1 / config", "2 / config"))
    assert command("good", "--draw").returncode == 0
    assert command("wrong", "--draw").returncode == 3


def test_a_name_that_does_not_exist_runs_nothing(command):
    finished = command("good", "nothing_like_it")
    assert finished.returncode == 2
    assert finished.stderr.startswith("toymodels: there is no experiment 'nothing_like_it'")


@pytest.mark.parametrize("slower", [0.5, 1, 2, 4])
@pytest.mark.parametrize("start", [0, 5, 10])
def test_the_time_left_is_soon_right(slower, start):
    """Eighty experiments take up to 20 minutes, and starting each takes some seconds more."""
    recorded = np.geomspace(0.5, 1200, 80)
    needed = slower * (recorded + start)
    elapsed, done, known = needed.cumsum()[:-1], recorded.cumsum()[:-1], recorded.sum()
    estimates = [many.time_left(*each, known) for each in zip(elapsed, done, strict=True)]
    ratio = np.array(estimates) / (needed.sum() - elapsed)
    # The first estimate knows only the records, and none is more than a quarter worse than it.
    assert ratio.min() > 0.8 / max(slower, 1)
    assert ratio.max() < 1.25 * max(1 / slower, 1)
    late = ratio[done > known / 2]
    assert late.min() > 0.7
    assert late.max() < 1.3
