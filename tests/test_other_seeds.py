"""A claim that holds by the luck of its seeds is found, and a sound one is not."""

from pathlib import Path

import jax
import numpy as np
import other_seeds
import pytest
import tiny_experiment

DRAWS = """
import jax
def run(config):
    def cell(key):
        common = jax.random.uniform(jax.random.key(7))
        return {"own": jax.random.uniform(key), "common": common}
    drawn = tm.sweep(cell, num_seeds=2, progress=False)
    many = jax.random.uniform(jax.random.key(3), 10_000)
    return drawn.assign(numpy=np.random.default_rng(5).random(), mean=float(many.mean()))
"""
CLAIMS = """
def claims(results):
    here = tm.finding("measured here")
    yield tm.near("Seed 0.", {own}, results.own.sel(seed=0), here, within=1e-6)
    yield tm.near("All seeds.", {common}, results.common.mean(), here, within=1e-6)
    yield tm.near("NumPy.", {numpy}, results.numpy, here, within=1e-6)
    yield tm.near("The mean.", 0.5, results["mean"], here, within=0.02)  # 7 standard errors
    yield tm.near("A claim that always fails.", 2, results["mean"], here, within=0.02)
"""
NUMBERS = {
    "own": float(jax.random.uniform(jax.random.key(0))),
    "common": float(jax.random.uniform(jax.random.key(7))),
    "numpy": np.random.default_rng(5).random(),
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(other_seeds, "SHIFTS", (1000, 2000))
    tiny_experiment.write(DRAWS, CLAIMS.format(**NUMBERS))
    return Path("tiny.py")


def test_claims_that_hold_by_luck_are_found(path):
    recorded = other_seeds.claims(path, 0)
    assert [claim.holds for claim in recorded] == [True, True, True, True, False]
    lucky = other_seeds.turned(path, recorded)
    assert [each.recorded.statement for each in lucky] == ["Seed 0.", "All seeds.", "NumPy."]
    for each in lucky:
        numbers = {claim.measured for claim in each.others}
        assert len(numbers) == 2  # all sets of seeds differ


def test_a_shift_ends_with_its_block():
    with other_seeds.shifted(1):
        assert float(jax.random.uniform(jax.random.key(6))) == NUMBERS["common"]
    assert float(jax.random.uniform(jax.random.key(7))) == NUMBERS["common"]


def test_the_command_runs_what_is_quick_and_tells_what_turns(path, capsys, monkeypatch):
    assert tiny_experiment.toymodels("run", path) == 3
    assert other_seeds.main([]) == 1
    said = capsys.readouterr().out
    assert "Seed 0." in said
    assert "The mean." not in said
    assert "3 claims of 1 experiments turn" in said
    monkeypatch.setattr(other_seeds, "SECONDS", 0)
    assert other_seeds.main([]) == 0
    assert "0 claims of 0 experiments turn" in capsys.readouterr().out


def test_an_experiment_that_stops_with_other_seeds_is_found(path, capsys):
    assert tiny_experiment.toymodels("run", path) == 3
    tiny_experiment.write('def run(config): raise OSError("no")\ndef claims(results): ...\n')
    assert other_seeds.main(["tiny"]) == 1
    assert "stops with other seeds: OSError: no" in capsys.readouterr().out
