"""Stability and null values of circuits, and measures of a graph that is computed by hand."""

import inspect
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import toymodels as tm
from toymodels import circuits, plotting

KEY = jax.random.key(0)


def test_the_jaccard_index_is_counted_by_hand():
    kept = jnp.asarray([[1.0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]])
    np.testing.assert_allclose(circuits.jaccard(kept), (1 / 3 + 1 / 3 + 1) / 3, rtol=1e-6)
    assert circuits.jaccard(jnp.zeros((2, 4))) == 1
    assert circuits.jaccard(jnp.eye(4)) == 0
    assert np.isnan(circuits.jaccard(jnp.full((2, 4), jnp.nan)))


def test_the_jaccard_index_by_chance_is_the_mean_over_all_circuits():
    for first, second, edges in ((2, 3, 5), (0, 2, 4), (4, 4, 4), (0, 0, 3), (1, 1, 6)):
        chosen = {
            size: [np.isin(range(edges), c) for c in itertools.combinations(range(edges), size)]
            for size in {first, second}
        }
        pairs = itertools.product(chosen[first], chosen[second])
        values = [(a & b).sum() / (a | b).sum() if (a | b).any() else 1 for a, b in pairs]
        by_chance = circuits.jaccard_by_chance(first, second, edges)
        np.testing.assert_allclose(by_chance, np.mean(values), rtol=1e-12)


def test_rank_correlation_is_that_of_spearman_with_ties_and_has_the_variance_of_chance():
    draw = np.random.default_rng(0)
    rising = np.arange(6.0)
    known = np.stack([[rising, rising**3], [rising, -rising], np.zeros((2, 6))])
    ties = draw.integers(0, 4, (20, 2, 6)).astype(float)
    runs = np.concatenate([known, ties, draw.random((4000, 2, 6))])
    found = np.asarray(jax.jit(jax.vmap(circuits.rank_correlation))(jnp.asarray(runs, jnp.float32)))
    expected = [1, -1, np.nan, *(stats.spearmanr(*pair)[0] for pair in ties)]
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-5)
    chance = found[len(expected) :]
    np.testing.assert_allclose([chance.mean(), chance.var()], [0, 1 / 5], atol=0.02)
    three = jnp.asarray([rising, rising**3, -rising])
    np.testing.assert_allclose(circuits.rank_correlation(three), (1 - 1 - 1) / 3, atol=1e-5)


class Backup(nn.Module):
    """The model y = max(x_0, x_1) + x_2 of bits.

    Its first two edges can replace each other, and the third stands alone.
    """

    @nn.compact
    def __call__(self, bits):
        self.param("unused", nn.initializers.zeros, ())
        return tm.Site(name="output")(jnp.maximum(bits[0], bits[1])[None] + bits[2])


BACKUP = circuits.Behaviour(
    Backup(), {"unused": jnp.zeros(())}, circuits.Graph((("input", "output"),)),
    jnp.ones((1, 3)), jnp.zeros((1, 3)), lambda output: output,
)  # fmt: skip


def kept(*edges):
    return {("input", "output"): jnp.asarray(edges, float)[:, None]}


def test_measures_of_a_circuit_with_a_backup_are_those_computed_by_hand():
    """All edges together have the effect 2.

    The first two have 1 together and 1 each alone, and the third has 1.
    """
    measured = jax.jit(
        lambda own: jnp.stack(
            [
                measure(BACKUP, own)
                for measure in (circuits.faithfulness, circuits.completeness, circuits.minimality)
            ]
        )
    )
    table = {  # the circuit: faithfulness, completeness, minimality
        (1, 1, 1): (1, 1, 0),
        (1, 0, 1): (1, 0.5, 0.5),
        (1, 1, 0): (0.5, 0.5, 0),
        (0, 0, 1): (0.5, 0.5, 0.5),
        (1, 0, 0): (0.5, 0, 0.5),
    }
    for edges, expected in table.items():
        own = kept(*edges)
        np.testing.assert_allclose(measured(own), expected, atol=1e-6, err_msg=str(edges))
    # Either of the first two can go, and breaks nothing alone.
    np.testing.assert_allclose(circuits.vector(circuits.edge_patching(BACKUP)), [0, 0, 1])


def test_acdc_over_orders_is_the_mean_of_the_circuits_that_orders_leave():
    """The first of two edges that can replace each other is removed if it is visited first."""
    found = jax.jit(lambda: circuits.acdc_over_orders(KEY, BACKUP, threshold=0.1, num_orders=40))()
    share = circuits.vector(found.share)
    np.testing.assert_allclose(share[0] + share[1], 1, rtol=1e-6)
    assert 0.2 < share[0] < 0.8
    assert share[2] == 1
    # Two orders leave equal circuits, or circuits with one of three edges in common.
    first = np.round(40 * share[0])
    unequal = first * (40 - first) / (40 * 39 / 2)
    np.testing.assert_allclose(found.jaccard, 1 - unequal * 2 / 3, rtol=1e-5)


def test_top_edges_are_the_best_and_ties_follow_in_their_order():
    scores = kept(0.5, 2.0, 0.5)
    for count, expected in ((0, [0, 0, 0]), (1, [0, 1, 0]), (2, [1, 1, 0]), (3, [1, 1, 1])):
        np.testing.assert_array_equal(circuits.vector(circuits.top_edges(scores, count)), expected)


def test_the_names_of_edges_stand_at_the_places_of_their_numbers():
    edges = {
        ("b", "a"): jnp.arange(6.0).reshape(2, 3),
        ("a", "z"): jnp.arange(10.0, 13).reshape(3, 1),
        ("a", "b"): jnp.arange(20.0, 32).reshape(1, 12),
        ("c", "a"): jnp.ones((0, 3)),
    }
    found = dict(zip(circuits.edge_names(edges), circuits.vector(edges).tolist(), strict=True))
    assert found["b[1] -> a[2]"] == edges["b", "a"][1, 2]
    assert found == {
        f"{start}[{i}] -> {end}[{j}]": number
        for (start, end), each in edges.items()
        for (i, j), number in np.ndenumerate(np.asarray(each))
    }


def test_edges_without_their_sites_have_no_names():
    with pytest.raises(ValueError, match=r"of type list: give one array for each pair of sites"):
        inspect.unwrap(circuits.edge_names)([1.0, 2.0])


def test_scores_that_are_nan_name_no_circuit():
    """NaN has no rank: the first edges would be chosen, and the curve would be finite."""
    scores = {edge: one * np.nan for edge, one in BACKUP.all_edges().items()}
    assert np.isnan(circuits.vector(circuits.top_edges(scores, 2))).all()
    assert np.isnan(circuits.faithfulness_curve(BACKUP, scores)).all()
    assert np.isnan(circuits.rank_correlation(jnp.asarray([[1.0, np.nan, 3], [1, 2, 3]])))


def test_a_search_in_a_model_that_diverged_leaves_no_circuit():
    """A comparison with NaN is false, so that all edges would be kept."""
    diverged = BACKUP.replace(metric=lambda output: output * np.nan)
    order = jnp.arange(circuits.vector(BACKUP.all_edges()).size)
    kept = circuits.acdc(diverged, threshold=0.1, order=order)
    assert np.isnan(circuits.vector(kept)).all()


def test_projections_of_an_orthonormal_basis_overlap_as_little_as_possible():
    """The Gram matrix is a random projection of trace m before the vectors are scaled."""
    number, width = 12, 9
    project = jax.jit(jax.vmap(lambda key: circuits.random_directions(key, number, width=width)))
    draws = project(jax.random.split(KEY, 200))
    gram = np.einsum("dim,djm->dij", draws, draws)
    np.testing.assert_allclose(np.diagonal(gram, axis1=1, axis2=2), 1, rtol=1e-5)
    squares = (gram[:, ~np.eye(number, dtype=bool)] ** 2).mean()
    least = (number - width) / (width * (number - 1))  # the bound of Welch
    assert least < squares < 0.5 / width  # independent vectors have 1 / width


def test_padded_directions_are_unit_vectors_of_the_first_dimensions():
    number = 5
    full = circuits.padded_directions(KEY, number, number)
    np.testing.assert_allclose(full @ full.T, np.eye(number), atol=1e-5)
    for width, found in zip((3.0, 1.0), jax.jit(jax.vmap(  # the width may be traced
        lambda width: circuits.padded_directions(KEY, number, width)
    ))(jnp.asarray([3.0, 1.0])), strict=True):  # fmt: skip
        np.testing.assert_allclose(jnp.linalg.norm(found, axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(found[:, int(width) :], 0)
        kept = full[:, : int(width)]
        cosines = jnp.sum(found[:, : int(width)] * kept, 1) / jnp.linalg.norm(kept, axis=1)
        np.testing.assert_allclose(cosines, 1, rtol=1e-5)


def test_a_diagram_has_a_curve_for_each_edge_and_a_box_for_each_node():
    axes = plotting.figure()[1]
    nodes = {"input": ("a", "b"), "hidden": ("AND",), "output": ("XOR",)}
    edges = {
        "found": {("input", "hidden"): [[1], [1]]},
        "missed": {("hidden", "output"): [[1]], ("input", "output"): [[0], [1]]},
    }
    plotting.circuit_diagram(axes, nodes, edges, columns={"output": "layer 2"})
    assert len(axes.patches) == 4
    assert {text.get_text() for text in axes.texts} >= {"a", "b", "AND", "XOR", "layer 2"}
    ends = {tuple(map(tuple, patch.get_path().vertices[[0, -1]])) for patch in axes.patches}
    assert ((0, 0.75), (1, 0.25)) in ends
    assert ((0, 0.25), (2, 0.5)) in ends
    assert axes.get_legend_handles_labels()[1] == ["found", "missed"]
    with pytest.raises(tm.InputError, match=r"edges from 'input' to 'output' have shape \(1, 2\)"):
        plotting.circuit_diagram(axes, nodes, {"found": {("input", "output"): [[1, 0]]}})
    with pytest.raises(tm.InputError, match="columns names the site 'outptu': give text for the"):
        plotting.circuit_diagram(axes, nodes, edges, columns={"outptu": "layer 2"})


def test_true_and_chosen_edges_of_a_program_are_compared_one_by_one():
    """The program is x_1 XOR x_2, and the edge from x_2 is taken for one from x_3."""
    nodes = circuits.gate_nodes(3, [[circuits.XOR[1]]])
    assert nodes == {"input": ["$x_{1}$", "$x_{2}$", "$x_{3}$"], "output": ["XOR"]}
    true, chosen = np.array([True, True, False]), np.array([True, False, True])
    edges = circuits.compared_edges(circuits.boolean_graph(1), nodes, chosen, true)
    expected = {"found": [1, 0, 0], "missed": [0, 1, 0], "wrong": [0, 0, 1]}
    for kind, found in expected.items():
        np.testing.assert_array_equal(edges[kind]["input", "output"][:, 0], found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: circuits.jaccard(jnp.ones((1, 3))), r"kept has shape \(1, 3\): give runs x edges"),
        (lambda: circuits.rank_correlation(jnp.ones((1, 3))), r"scores has shape \(1, 3\)"),
        (lambda: circuits.jaccard(jnp.full((2, 3), 5.0)), "kept holds 5: give 1 for kept edges"),
        (
            lambda: inspect.unwrap(circuits.top_edges)(kept(3, 2, 1), 0.5),
            "count is 0.5: give a number of edges",
        ),
        (lambda: circuits.top_edges(kept(3, 2, 1), -1), "count is -1: give a number of edges, 0"),
        (lambda: circuits.gate_nodes(2, [[0.3]]), "bends holds 0.3, which is no gate"),
        (lambda: circuits.gate_nodes(2, [0.0]), r"bends has shape \(1,\): give layers x gates"),
        (
            lambda: inspect.unwrap(circuits.compared_edges)(
                circuits.boolean_graph(1), {"input": ["a"], "output": ["b"]}, np.ones(1), np.ones(1)
            ),
            "chosen is float64: give a truth value for each edge",
        ),
        (
            lambda: circuits.compared_edges(
                circuits.boolean_graph(1), {"input": ["a"]}, np.ones(1, bool), np.ones(1, bool)
            ),
            "nodes has no site 'output' of the graph",
        ),
        (lambda: circuits.padded_directions(KEY, 4, 5), "width is 5"),
        (lambda: circuits.jaccard_by_chance(5, 1, 4), "first is 5 of 4 edges: give at most 4"),
        (lambda: circuits.jaccard_by_chance(1, -1, 4), "second is -1"),
        (
            lambda: circuits.acdc_over_orders(KEY, BACKUP, threshold=0.1, num_orders=1),
            "num_orders is 1",
        ),
    ],
)
def test_bad_numbers_get_one_line(call, message):
    with pytest.raises(tm.InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
