"""Ctrl-C at any moment keeps what was finished, and a second run gives equal bits."""

import concurrent.futures
import json
import random
import re
import signal
import time

import numpy as np
import pytest
from faults import AXES, CELLS, bits, child, digest, held, right, say, sweep, wait_for
from helpers import around_blocks

import toymodels as tm
from toymodels.engine.devices import devices
from toymodels.sweeps import executables, program

pytestmark = pytest.mark.as_users_compile


def is_interrupted(path, quick_blocks, seconds):
    """Print when a block begins and ends, and what is left; later blocks are slow."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it

    def slow(run, number, *block):
        say("begins", number)
        time.sleep(seconds if number >= quick_blocks else 0.05)
        answer = run(*block)
        say("ends", number)
        return answer

    try:
        with around_blocks(slow):
            sweep(store=path)
    except tm.SweepInterrupted as interrupt:
        say("interrupted", str(interrupt), digest(interrupt.results))
        raise


def test_ctrl_c_waits_for_the_blocks_that_run(path, ran, undisturbed):
    with child(is_interrupted, str(path), 0, 0.5) as process:
        lines = wait_for(process.stdout, "ends")  # two more have begun, two have not
        process.send_signal(signal.SIGINT)
        said = [json.loads(line) for line in [*lines, *process.stdout]]
        told = process.stderr.read()
    assert process.returncode == 1
    assert re.search(
        r"finishing \d blocks that are running \([^)]*\d+ s[^)]*\); press Ctrl-C", told
    )
    assert "toymodels.sweeps.sweep.SweepInterrupted: interrupted; " in told
    begun, ended = ({number for word, number, *_ in said if word == w} for w in ("begins", "ends"))
    assert begun == ended
    (message, seen) = said[-1][1:]
    cells = 8 * len(begun)
    assert cells < CELLS
    assert f"{cells} of {CELLS} cells finished" in message
    assert f"run the same sweep again to go on with those that are in {path}" in message
    assert held(path) == cells
    assert bits(sweep(store=path)) == bits(undisturbed)
    assert len(ran) == CELLS - cells
    finished = np.ones((2, 24), bool)
    for lane in ran:
        finished[lane[0], list_of_points().index(lane[1:])] = False
    partial = undisturbed.where(as_results(finished, undisturbed))
    assert seen == digest(partial)


def list_of_points():
    return [(np.float32(a), np.float32(b)) for a in AXES["a"] for b in AXES["b"]]


def as_results(finished, results):
    shaped = finished.reshape(2, 6, 4).transpose(1, 2, 0)
    return results["y"].copy(data=shaped)


@pytest.fixture(scope="module")
def interrupted_twice(tmp_path_factory):
    """Return store, message, digest, and seconds to the exception and to the end of the process."""
    path = tmp_path_factory.mktemp("twice") / "store.db"
    with child(is_interrupted, str(path), 3, 4.0) as process:
        wait_for(process.stdout, "begins", "4")  # after three quick ones: two at once
        process.send_signal(signal.SIGINT)
        wait_for(process.stderr, "press Ctrl-C again to go on without them")
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        started = time.perf_counter()
        *_, line = wait_for(process.stdout, "interrupted")
        raised = time.perf_counter() - started
        process.wait()
        exited = time.perf_counter() - started
    return path, *json.loads(line)[1:], raised, exited


def test_ctrl_c_twice_leaves_the_blocks_that_run(interrupted_twice, ran, undisturbed):
    path, message, _, raised, exited = interrupted_twice
    assert raised < exited / 2  # the process ends when the blocks of four seconds end
    assert f"24 of {CELLS} cells finished" in message
    assert held(path) == 24
    assert bits(sweep(store=path)) == bits(undisturbed)
    assert len(ran) == 24


def test_ctrl_c_without_a_store_keeps_what_was_finished(ran, undisturbed):
    def interrupted(run, number, *block):
        if number == 4:
            raise KeyboardInterrupt
        return run(*block)

    finished = r"of 48 cells finished.*others are NaN"
    with (
        around_blocks(interrupted),
        pytest.raises(tm.SweepInterrupted, match=finished) as caught,
    ):
        sweep()
    assert right(caught.value.results, undisturbed) in range(24, len(ran) + 1)


def test_ctrl_c_says_how_long_a_block_takes_on_the_devices_that_ran(monkeypatch, capfd):
    """One of 64 devices has the program, and its blocks take half a second each."""
    monkeypatch.setattr(executables, "devices", lambda: 64 * devices()[:1])
    monkeypatch.setattr(executables, "LOADING_SECONDS", 1e9)
    monkeypatch.setattr(program, "keeps_programs", lambda: True)

    def interrupted(run, number, *block):
        if number == 2:
            raise KeyboardInterrupt
        time.sleep(0.5)
        return run(*block)

    with around_blocks(interrupted), pytest.raises(tm.SweepInterrupted):
        sweep()
    seconds = re.search(r"about (\d+) s each", capfd.readouterr().err)
    assert seconds is not None
    assert int(seconds[1]) <= 4


def test_an_interrupt_before_a_block_is_listened_to_loses_nothing(monkeypatch, slow):
    """Ctrl-C can come between the start of a block and the call that waits for its end."""
    add = concurrent.futures.Future.add_done_callback

    def interrupted(self, callback):
        monkeypatch.setattr(concurrent.futures.Future, "add_done_callback", add)
        raise KeyboardInterrupt

    monkeypatch.setattr(concurrent.futures.Future, "add_done_callback", interrupted)
    with pytest.raises(tm.SweepInterrupted, match=r"of 48 cells finished"):
        sweep()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer")
# Python drops an interrupt that comes within a callback of its collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_moment(path, ran, slow):
    """The timer interrupts Python anywhere, even in the middle of a transaction."""
    grid = {"axes": {**AXES, "a": np.linspace(0, 1, 20)}, "width": 2}  # 80 blocks
    expected = sweep(**grid)
    chance = random.Random(0)
    cells, interrupts = 0, 0

    def interrupt(*_):
        raise KeyboardInterrupt

    def armed(run, number, *block):
        if not timers:
            timers.append(signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-3, 0.2)))
        return run(*block)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        while True:
            timers = []
            try:
                with around_blocks(armed):
                    results = sweep(**grid, store=path)
                break
            except tm.SweepInterrupted as interrupted:
                partial = interrupted.results
            except KeyboardInterrupt:  # after the last block
                continue
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            interrupts += 1
            assert right(partial, expected) == held(path) >= cells
            cells = held(path)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupts > 3
    assert bits(results) == bits(expected)
    assert held(path) == 160
