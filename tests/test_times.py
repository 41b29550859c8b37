"""The time of a run is the sum over the calls that used its store, or it is not known."""

import json
from pathlib import Path

import pytest
from tiny_experiment import CLAIMS, HEAD, toymodels

from toymodels.experiment import pages, times

# The first call works for a third of a second and is stopped; the second one goes on from there.
RUN = """
import time
def run(config, *, store):
    if not store.exists():
        store.touch()
        while time.process_time() < config.until: pass
        raise tm.InputError("stopped")
    return xr.Dataset({"two": 2.0})
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    until = (
        "    until: float = dataclasses.field(default_factory=lambda: time.process_time() + 0.3)"
    )
    Path("tiny.py").write_text("import time\n" + HEAD + until + RUN + CLAIMS, encoding="utf-8")


def record():
    """The record of a run with a store, and the seconds that its page and `make figures` name."""
    assert toymodels("run", "tiny", "--store", "kept.db", "--out", "out") == 0
    (path,) = Path("out").glob("tiny*.json")
    return json.loads(path.read_text()), pages.read(Path("out"))[path.stem].estimate


def test_the_calls_of_one_store_are_summed():
    assert toymodels("run", "tiny", "--store", "kept.db", "--out", "out") == 2
    found, estimate = record()
    assert 0.3 <= found["processor_seconds"] < 3
    assert 0.3 <= found["seconds"] < 30
    assert estimate == min(found["seconds"], found["processor_seconds"])
    assert "2 calls" in found["times"]


def test_a_call_that_was_killed_makes_the_time_unknown():
    killed = times.measured(Path("kept.db"))
    killed.__enter__()
    Path("kept.db").touch()
    for _ in range(2):
        found, estimate = record()
        assert not {"seconds", "processor_seconds"} & found.keys()
        assert "not known" in found["times"]
        assert estimate is None


def test_calls_at_the_same_time_make_the_time_unknown():
    Path("kept.db").touch()
    times.beside(Path("kept.db")).write_text(
        '{"calls": 1, "seconds": 1.0, "processor_seconds": 1.0, "ended": true}'
    )
    with times.measured(Path("kept.db")) as first:
        assert first.spent().seconds is not None
        with times.measured(Path("kept.db")) as second:
            assert second.spent().seconds is None
        assert first.spent().seconds is None
    assert "not known" in record()[0]["times"]


@pytest.mark.parametrize("kept", [None, "", "{}", '{"calls": 1, "ended": true}', "[1]"])
def test_a_store_without_times_makes_them_unknown(kept):
    Path("kept.db").touch()
    if kept is not None:
        times.beside(Path("kept.db")).write_text(kept)
    assert "not known" in record()[0]["times"]


def test_a_store_that_was_deleted_counts_no_more():
    times.beside(Path("kept.db")).write_text('{"calls": 3, "seconds": 9.0, "ended": true}')
    with times.measured(Path("kept.db")) as call:
        assert call.spent().calls == 1
        assert call.spent().seconds < 3


def test_a_run_without_a_store_leaves_no_file():
    with times.measured(None) as call:
        assert "times" not in call.spent().attributes()
    assert not list(Path().glob("*.times.json"))
