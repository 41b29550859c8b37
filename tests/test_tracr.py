"""Compiled programs: exact on every input, the same in any basis, and wired as their RASP says."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import read_tracr

import toymodels as tm
from toymodels import circuits
from toymodels.circuits import tracr

KEY = jax.random.key(0)
MEANING = {
    "frac_prevs": lambda s: [s[: i + 1].count("x") / (i + 1) for i in range(len(s))],
    "hist": lambda s: [str(s.count(token)) for token in s],
    "reverse": lambda s: list(s[::-1]),
    "sort": sorted,
}


def every_input(program):
    tokens = [token for token in program.vocabulary if not token.startswith("compiler")]
    return list(itertools.product(tokens, repeat=4))


def outputs(program, sequences):
    places = [[program.vocabulary.index(t) for t in (tracr.START, *s)] for s in sequences]
    inputs = jnp.eye(len(program.vocabulary))[jnp.asarray(places)]
    run = jax.jit(jax.vmap(lambda x: program.model.apply({"params": program.params}, x)))
    return np.asarray(run(inputs))


@pytest.mark.parametrize("name", MEANING)
def test_a_program_is_right_on_every_input_and_in_another_basis(name):
    program = circuits.tracr_program(name)
    sequences = every_input(program)
    number = len(program.residual)
    turned = circuits.compressed(program, circuits.random_directions(KEY, number, width=number + 1))
    for each in (program, turned):
        for sequence, output in zip(sequences, outputs(each, sequences), strict=True):
            answer, expected = each.decoded(output), MEANING[name](sequence)
            if program.outputs:
                assert answer == expected, sequence
            else:
                np.testing.assert_allclose(answer, expected, atol=1e-3)
    assert len(sequences) == 3**4
    few = circuits.compressed(program, circuits.random_directions(KEY, number, width=number // 2))
    assert not np.allclose(outputs(few, sequences), outputs(program, sequences), atol=0.1)


def test_one_sequence_is_encoded_with_the_start_token_before_it():
    program = circuits.tracr_program("reverse")
    inputs = program.encoded("abca")
    assert inputs.shape == (5, 5)
    assert [program.vocabulary[place] for place in inputs.argmax(axis=1)[1:]] == list("abca")
    output = program.model.apply({"params": program.params}, inputs)
    assert program.decoded(output) == list("acba")


def test_the_circuit_of_hist_is_what_its_program_says():
    """One head compares tokens and moves the first position; neurons read how much of it came."""
    program = circuits.tracr_program("hist")
    wired = {edge: bool(w.all()) for edge, w in circuits.wired_edges(program).items()}
    missing = {edge for edge, there in wired.items() if not there}
    assert missing == {("embedding", "output"), ("layer_0/heads", "output")}
    sequences = every_input(program)
    cleans = jnp.stack([program.encoded(s) for s in sequences[::7]])
    corrupts = jnp.stack([program.encoded(s) for s in sequences[5::7][: len(cleans)]])
    cleans = cleans[: len(corrupts)]
    behaviour = circuits.Behaviour(
        program.model, program.params, circuits.tracr_graph(1), cleans, corrupts, lambda y: y
    )
    scores = jax.jit(circuits.edge_patching)(behaviour)
    active = {edge for edge, score in scores.items() if float(score.sum()) > 1e-4}
    # What is moved is whether a position is the first, which other tokens do not change, and the
    # neurons read a constant beside the head.
    constant = {("embedding", "layer_0/value"), ("layer_0/value", "layer_0/heads")}
    assert active == wired.keys() - missing - constant - {("embedding", "layer_0/neurons")}


def test_wired_edges_are_few():
    counts = {"frac_prevs": (8, 29), "hist": (9, 11), "reverse": (19, 89), "sort": (19, 55)}
    for name, (wired, edges) in counts.items():
        found = circuits.wired_edges(circuits.tracr_program(name))
        assert sum(int(w.sum()) for w in found.values()) == wired
        assert sum(w.size for w in found.values()) == edges


def test_bad_programs_get_one_line():
    program = circuits.tracr_program("sort")
    narrow = circuits.compressed(program, jnp.ones((31, 5)))
    compiled = types.SimpleNamespace(model_config=None, residual_labels=["one", "sort_12:1"])
    for call, message in (
        (lambda: circuits.tracr_program("sorted"), "no program 'sorted': take one of frac_prevs"),
        (lambda: program.encoded("124"), "token '4' is none of '1', '2', '3'"),
        (lambda: program.decoded(np.full((5, 3), np.nan)), "the output holds NaN"),
        (lambda: circuits.wired_edges(narrow), "compressed to 5 dimensions"),
        (lambda: circuits.compressed(program, jnp.eye(3)), "3 directions for 31 dimensions"),
        (lambda: circuits.from_tracr(compiled, output="sort"), "output is 'sort': take one of one"),
    ):
        with pytest.raises(tm.InputError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_program_that_tracr_compiles_now_is_the_stored_one():
    pytest.importorskip("tracr", reason="Tracr is not installed")
    own = circuits.from_tracr(read_tracr.compiled("hist"), output=read_tracr.OUTPUTS["hist"])
    stored = circuits.tracr_program("hist")
    assert (own.model, *own[2:]) == (stored.model, *stored[2:])
    jax.tree.map(np.testing.assert_array_equal, own.params, stored.params)
