"""A process that is killed loses no cell that it stored, and two processes share one store."""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from faults import CELLS, bits, child, digest, held, output, say, sweep, wait_for
from helpers import around_blocks

from toymodels.sweeps.store.store import Store

pytestmark = pytest.mark.as_users_compile

# A process writes most of the time, because it has many blocks of few cells; so kills hit a write.
MANY = {"axes": {"a": np.linspace(0.0, 1.0, 250), "b": [0.5, 2.0]}, "num_seeds": 2, "width": 2}
KILLS = 26  # of each of two processes


def sweeps_until_killed(path, tell):
    """Sweep, and tell through a pipe when the sweep starts and when its first block runs."""

    def telling(run, number, *block):
        if number == 0:
            os.write(tell, b"running\n")
        return run(*block)

    os.write(tell, b"started\n")
    with around_blocks(telling):
        sweep(**MANY, store=path)
    os._exit(0)


def is_killed_again_and_again(folder, seed):
    """Fork before JAX has started, so that a turn does not cost an import."""
    jax.config.update("jax_num_cpu_devices", 1)  # an error if JAX has started: a fork would hang
    warnings.simplefilter("ignore")  # of JAX about the fork
    chance = random.Random(seed)
    number = kills = 0
    while True:
        path = Path(folder, f"{number}.db")
        listen, tell = os.pipe()
        if not (process := os.fork()):
            sweeps_until_killed(path, tell)
        os.close(tell)
        with os.fdopen(listen) as phases:
            phases.readline()
            if chance.random() < 0.75:
                phases.readline()

            if kills < KILLS:
                time.sleep(chance.uniform(0, 0.3))
                os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
        killed = os.WIFSIGNALED(status)
        assert killed or status == 0
        say(number, killed, *looked_at(path))
        kills += killed
        if not killed and kills >= KILLS:
            return
        number += not killed  # it was done before it could be killed


def looked_at(path):
    """Return whether a store was cut off in a write, and how many cells it has.

    A copy is opened, because opening a store repairs it.
    """
    if not path.exists():
        return False, 0
    journal = Path(f"{path}-journal")
    with tempfile.TemporaryDirectory() as folder:
        for file in (path, journal):
            if file.exists():
                shutil.copy(file, folder)
        with Store(Path(folder, path.name)) as copy:
            cells, quarantined, copies = copy.verify()
    assert quarantined == 0
    assert copies == ()
    return journal.exists(), cells


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_is_killed_loses_no_stored_cell(tmp_path, ran):
    expected = sweep(**MANY)
    assert len(ran) == 1000
    ran.clear()
    processes = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        # The process has a cache of its own, because it can be killed while it writes to that.
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        processes.append(child(is_killed_again_and_again, str(folder), seed, **cache))
    kills = in_a_write = 0
    for seed, process in enumerate(processes):
        turns = [json.loads(line) for line in output(process)]
        before = {}
        for number, killed, cut, cells in turns:
            assert before.get(number, 0) <= cells
            before[number] = cells
            kills += killed
            in_a_write += cut
        assert set(before.values()) == {1000}
        for number in before:
            path = tmp_path / str(seed) / f"{number}.db"
            assert held(path) == 1000
            assert bits(sweep(**MANY, store=path)) == bits(expected)
        names = {file.name for file in (tmp_path / str(seed)).iterdir()}
        assert names == {"compiled", *(f"{number}.db" for number in before)}
    assert kills >= 50
    assert in_a_write > 0
    assert ran == []


def compiles_from_a_damaged_cache(folder):
    """Compile with a cache whose file is cut off.

    A process that is killed can leave such a file, because JAX writes it in place.
    """
    digests = [digest(sweep())]
    for file in Path(folder).glob("*-cache"):
        os.truncate(file, file.stat().st_size // 2)
    jax.clear_caches()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        digests.append(digest(sweep()))
    say(*digests, *(str(warning.message) for warning in caught))


def test_a_damaged_cache_of_compiled_programs_changes_no_number(tmp_path, undisturbed):
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    (line,) = output(child(compiles_from_a_damaged_cache, str(tmp_path), **cache))
    before, after, *messages = json.loads(line)
    assert before == after == digest(undisturbed)
    assert messages
    assert all("Error reading persistent compilation cache" in message for message in messages)


def sweeps_when_told(path):
    say("ready")
    sys.stdin.readline()
    say(digest(sweep(store=path)))


def test_two_processes_sweep_into_one_store(path, undisturbed, ran):
    processes = [child(sweeps_when_told, str(path)) for _ in range(2)]
    for process in processes:
        wait_for(process.stdout, "ready")
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert json.loads(output(process)[-1]) == [digest(undisturbed)]
    assert held(path) == CELLS
    with Store(path) as store:
        assert len(store.programs()) == 1
    assert bits(sweep(store=path)) == bits(undisturbed)
    assert ran == []
