"""Circuits: graphs on top of sites, known circuits, discovery, measures, and the census."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_attention import HEADS, MODEL, PERMUTED

import toymodels as tm
from toymodels import circuits
from toymodels.analysis import classification

KEY = jax.random.key(0)
A = jnp.asarray([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]])
B = jnp.asarray([[2.0, 1.0], [-1.0, 0.5]])
C = jnp.asarray([[0.0, 1.0, 0.0], [1.0, 0.0, -1.0]])


class Linear(nn.Module):
    """The model y = B A x + C x: a hidden layer, and a path around it."""

    @nn.compact
    def __call__(self, x):
        self.param("unused", nn.initializers.zeros, ())
        hidden = tm.Site(name="hidden")(A @ x)
        return tm.Site(name="output")(B @ hidden + C @ x)


LINEAR, NOTHING = Linear(), {"unused": jnp.zeros(())}
GRAPH = circuits.Graph((("input", "hidden"), ("hidden", "output"), ("input", "output")))
CLEANS, CORRUPTS = jax.random.normal(KEY, (2, 40, 3))
BEHAVIOUR = circuits.Behaviour(LINEAR, NOTHING, GRAPH, CLEANS, CORRUPTS, lambda output: output)


def test_all_edges_are_the_clean_run_and_none_the_corrupt_one():
    ones = circuits.all_edges(LINEAR, NOTHING, GRAPH, CLEANS[0])
    zeros = jax.tree.map(jnp.zeros_like, ones)

    def run(kept):
        return circuits.run(LINEAR, NOTHING, GRAPH, CLEANS[0], CORRUPTS[0], kept)

    np.testing.assert_array_equal(run(ones), LINEAR.apply({"params": NOTHING}, CLEANS[0]))
    np.testing.assert_array_equal(run(zeros), LINEAR.apply({"params": NOTHING}, CORRUPTS[0]))
    # One path alone: from the second input through the first unit to the first output.
    path = {edge: jnp.zeros_like(kept) for edge, kept in ones.items()}
    path["input", "hidden"] = path["input", "hidden"].at[1, 0].set(1)
    path["hidden", "output"] = path["hidden", "output"].at[0, 0].set(1)
    change = B[0, 0] * A[0, 1] * (CLEANS - CORRUPTS)[0, 1]
    np.testing.assert_allclose(run(path) - run(zeros), [change, 0], rtol=1e-5, atol=1e-6)


def test_in_a_linear_model_all_scores_are_the_closed_form():
    """Removing an edge changes the output by its weight times the later weights that read it."""
    moved = jnp.mean((CLEANS - CORRUPTS) ** 2, axis=0)
    hidden = jnp.mean(((CLEANS - CORRUPTS) @ A.T) ** 2, axis=0)
    expected = {
        ("input", "hidden"): (A**2 * jnp.sum(B**2, axis=0)[:, None] * moved[None]).T,
        ("hidden", "output"): (B**2 * hidden[None]).T,
        ("input", "output"): (C**2 * moved[None]).T,
    }
    exact, first_order, integrated = jax.jit(
        lambda: (
            circuits.edge_patching(BEHAVIOUR),
            circuits.edge_attribution(BEHAVIOUR),
            circuits.edge_attribution(BEHAVIOUR, num_steps=3),
        )
    )()
    for edge, scores in expected.items():
        for found in (exact, first_order, integrated):
            np.testing.assert_allclose(found[edge], scores, rtol=1e-4, atol=1e-5)
    # A circuit of some edges alone has the share of the effect that these edges have.
    alone = {edge: jnp.zeros_like(scores) for edge, scores in exact.items()}
    alone["input", "output"] = jnp.ones((3, 2))
    effect = (CLEANS - CORRUPTS) @ (B @ A + C).T
    own = (CLEANS - CORRUPTS) @ C.T
    share = jnp.sum(own * effect) / jnp.sum(effect**2)
    np.testing.assert_allclose(circuits.faithfulness(BEHAVIOUR, alone), share, rtol=1e-4)
    # The effects of two circuits that share a linear model add up to its effect.
    rest = {edge: jnp.ones_like(scores) for edge, scores in exact.items()}
    rest["input", "output"] = jnp.zeros((3, 2))
    np.testing.assert_allclose(circuits.completeness(BEHAVIOUR, rest), 1 - share, rtol=1e-4)


@pytest.fixture(scope="module")
def known():
    """Return a random circuit of gates, its edges, and pairs of examples that show all of them."""
    program = circuits.random_program(KEY, num_inputs=5, layers=2, gates=3)
    table = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=5)))
    corrupts = jax.random.permutation(KEY, jnp.concatenate([table, table, table]))
    return program, circuits.true_edges(program), jnp.concatenate([table] * 3), corrupts


def outputs_of_gates(program, bits):
    """Return the outputs of all gates by logic, without arithmetic."""
    values = [bool(bit) for bit in bits]
    names = {circuits.AND: "and", circuits.OR: "or", circuits.XOR: "xor"}
    for operands, kinds in zip(program.operands, program.kinds, strict=True):
        new = []
        for (a, b), kind in zip(operands.tolist(), kinds.tolist(), strict=True):
            a, b = values[a], values[b]
            new.append({"and": a and b, "or": a or b, "xor": a != b}[names[tuple(kind)]])
        values += new
    return new


@pytest.mark.parametrize("correcting", [False, True])
def test_a_network_in_as_many_dimensions_as_variables_computes_its_program(known, correcting):
    program, _, table, _ = known
    network = circuits.BooleanNetwork(2, 3, width=11, correcting=correcting)
    params = circuits.written(program, circuits.random_directions(KEY, 11, width=11))
    outputs = jax.vmap(lambda bits: network.apply({"params": params}, bits))(table[:32])
    expected = [outputs_of_gates(program, bits) for bits in np.asarray(table[:32])]
    np.testing.assert_allclose(outputs, np.asarray(expected, float), atol=1e-5)


def test_discovery_finds_the_edges_of_a_known_circuit(known):
    program, truth, cleans, corrupts = known
    network = circuits.BooleanNetwork(2, 3, width=11)
    params = circuits.written(program, circuits.random_directions(KEY, 11, width=11))
    graph = circuits.boolean_graph(2)
    behaviour = circuits.Behaviour(network, params, graph, cleans, corrupts, lambda output: output)
    used = circuits.vector(truth.used)
    assert used.dtype == bool
    assert used.sum() <= circuits.vector(truth.wired).sum() == 2 * 2 * 3
    patched = circuits.vector(circuits.edge_patching(behaviour))
    np.testing.assert_array_equal(patched > 1e-6, used)
    number = used.size
    for order in (jnp.arange(number), jax.random.permutation(KEY, number)):
        kept = circuits.acdc(behaviour, threshold=1e-6, order=order)
        np.testing.assert_array_equal(circuits.vector(kept) > 0, used)
    assert circuits.minimality(behaviour, kept) > 1e-4
    np.testing.assert_allclose(circuits.faithfulness(behaviour, kept), 1, atol=1e-4)
    curve = circuits.faithfulness_curve(behaviour, circuits.of_edges(patched, kept))
    np.testing.assert_allclose(np.asarray(curve)[[0, int(used.sum()), -1]], [0, 1, 1], atol=1e-4)


def test_where_operands_pass_a_threshold_gradients_see_no_edge(known):
    """The slope of the threshold is 0 at right values, but not between them."""
    program, truth, cleans, corrupts = known
    network = circuits.BooleanNetwork(2, 3, width=11, correcting=True)
    params = circuits.written(program, circuits.random_directions(KEY, 11, width=11))
    behaviour = circuits.Behaviour(
        network, params, circuits.boolean_graph(2), cleans, corrupts, lambda output: output
    )
    attribution = [
        jax.jit(lambda steps=steps: circuits.edge_attribution(behaviour, num_steps=steps))()
        for steps in (0, 3)  # with 2 steps operands would lie on the kinks, 1/4 and 3/4
    ]
    first_order, integrated = (circuits.vector(scores) for scores in attribution)
    np.testing.assert_array_equal(first_order, 0)
    assert classification.auroc(integrated, circuits.vector(truth.wired)) > 0.8


def test_few_dimensions_make_noise_and_a_threshold_takes_it_away():
    """One input is true, so the noise of an operand is one product of random directions."""
    program = circuits.random_program(KEY, num_inputs=60, layers=1, gates=4)
    bits = jnp.eye(60)
    expected = jnp.asarray([outputs_of_gates(program, row) for row in np.eye(60)], float)
    params = circuits.written(program, circuits.random_directions(KEY, 64, width=50))
    errors = {}
    for correcting in (False, True):
        network = circuits.BooleanNetwork(1, 4, width=50, correcting=correcting)
        outputs = jax.vmap(lambda row, n=network: n.apply({"params": params}, row))(bits)
        errors[correcting] = jnp.mean((outputs - expected) ** 2)
    assert errors[True] < 0.2 * errors[False]
    assert errors[False] > 1e-3


def test_methods_and_measures_of_one_behaviour_trace_its_model_together():
    traces = []

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x):
            traces.append(x)
            return tm.Site(name="output")(nn.Dense(2)(x))

    model = Counted()
    behaviour = BEHAVIOUR.replace(
        model=model,
        params=model.init(KEY, CLEANS[0])["params"],
        graph=circuits.Graph((("input", "output"),)),
        metric=jnp.asarray,
    )
    scores = circuits.edge_patching(behaviour)
    circuits.edge_attribution(behaviour)
    before = len(traces)
    circuits.acdc(behaviour, threshold=0.1, order=jnp.arange(6))
    circuits.edge_pruning(behaviour, penalty=0.1, optimizer=optax.sgd(0.1), steps=1)
    circuits.edge_attribution(behaviour, num_steps=2)
    circuits.faithfulness_curve(behaviour, scores)
    number_of_checks = 2  # of the edges, by the search and by the mask
    assert len(traces) == before + 2 * number_of_checks


def test_a_trained_mask_drops_the_edges_that_do_nothing():
    mask = jax.jit(
        lambda: circuits.edge_pruning(BEHAVIOUR, penalty=0.5, optimizer=optax.adam(0.1), steps=100)
    )()
    zero = C.T == 0
    assert mask["input", "output"][zero].max() < 0.5 < mask["input", "output"][~zero].min()


def test_an_induction_head_reads_the_head_before_it_by_its_keys_alone():
    read = [f"layer_1/{name}" for name in ("query", "key", "value")]
    graph = circuits.Graph(
        (
            ("embedding", "layer_0/heads"),
            *((sender, each) for each in read for sender in ("embedding", "layer_0/heads")),
            *((each, "layer_1/heads") for each in read),
            *((each, "output") for each in ("embedding", "layer_0/heads", "layer_1/heads")),
        ),
        whole=("embedding", "output"),
    )
    corrupt = PERMUTED[:, jnp.asarray([1, 2, 3, 4, 5, 0])][jnp.asarray([5, 3, 1, 0, 2, 4] * 2)]
    behaviour = circuits.Behaviour(
        MODEL, HEADS, graph, PERMUTED[None], corrupt[None], lambda logits: logits[-1]
    )
    scores = {edge: float(s.sum()) for edge, s in circuits.edge_patching(behaviour).items()}
    assert {edge for edge, score in scores.items() if score > 1e-3} == {
        ("embedding", "layer_0/heads"),
        ("layer_0/heads", "layer_1/key"),
        ("embedding", "layer_1/query"),
        ("embedding", "layer_1/value"),
        *((each, "layer_1/heads") for each in read),
        ("layer_1/heads", "output"),
    }


def test_areas_of_equal_edges_are_the_closed_forms_and_the_grid_is_off():
    """The model has E equal edges, of which K matter and are ranked first.

    The numbers of the grid are computed by hand.
    """
    for share, cpr, cmd in ((0.3, 0.8167, 0.1823), (0.1, 0.950, 0.049)):
        edges, important = 10_000, int(10_000 * share)
        found = circuits.areas(jnp.minimum(jnp.arange(edges + 1) / important, 1.0))
        np.testing.assert_allclose(found.cpr, 1 - (important + 1) / (2 * edges), rtol=1e-4)
        np.testing.assert_allclose(found.cmd, (important + 1) / (2 * edges), rtol=1e-3)
        np.testing.assert_allclose([found.cpr_grid, found.cmd_grid], [cpr, cmd], atol=1e-3)
    perfect = circuits.areas(jnp.ones(101))
    np.testing.assert_allclose(perfect, [1, 0, 0.999, 0], atol=1e-6)


def test_outputs_of_all_circuits_are_those_of_networks_with_weights_set_to_zero():
    random = np.random.default_rng(0)
    read, write, shift, x = (
        random.normal(size=size).astype(np.float32) for size in ((2, 3), 2, 2, (5, 3))
    )
    network = (*map(jnp.asarray, (read, shift, write)), jnp.asarray(0.3))
    found = circuits.outputs_of_all_circuits(*network, jnp.asarray(x))
    for mask, outputs in zip(circuits.all_circuits(8).reshape(-1, 2, 4), found, strict=True):
        hidden = np.maximum(x @ (read * mask[:, :3]).T + shift, 0)
        np.testing.assert_allclose(outputs, hidden @ (write * mask[:, 3]) + 0.3, atol=1e-5)
    with pytest.raises(tm.InputError, match="the network has 21 edges"):
        circuits.outputs_of_all_circuits(
            jnp.ones((7, 2)), jnp.ones(7), jnp.ones(7), jnp.zeros(()), jnp.ones((1, 2))
        )


def test_minimal_circuits_are_those_of_a_search_over_sets():
    masks = circuits.all_circuits(4)
    np.testing.assert_array_equal(masks @ [8, 4, 2, 1], np.arange(16))
    for seed in range(5):
        faithful = np.random.default_rng(seed).random(16) < 0.5
        sets = [frozenset(np.flatnonzero(row)) for row in masks]
        good = [s for s, is_good in zip(sets, faithful, strict=True) if is_good]
        expected = [s in good and not any(other < s for other in good) for s in sets]
        found = circuits.minimal_circuits(jnp.asarray(faithful))
        np.testing.assert_array_equal(found, expected)
        above = [any(other <= s for other in good) for s in sets]
        np.testing.assert_array_equal(circuits.holds_faithful(jnp.asarray(faithful)), above)


@pytest.mark.parametrize(
    ("edges", "more", "message"),
    [
        ((), {}, "the graph has no edge"),
        ((("input", "hidden"), ("hidden", "input"), ("hidden", "output")), {}, "cycle through"),
        ((("input", "hiden"), ("hiden", "output")), {}, "site 'hiden', but the model has hidden"),
        ((("input", "hidden"),), {}, "no edge enters the output 'output'"),
        ((*GRAPH.edges,), {"whole": ("heads",)}, "site 'heads', but the model has"),
        ((("input", "hidden"), ("hidden", "output")), {}, "'output' also depends on the input"),
        ((("input", "hidden"), ("input", "output")), {}, "also depends on site 'hidden' around"),
        ((("output", "hidden"), *GRAPH.edges), {}, "cycle through"),
    ],
)
def test_a_graph_that_is_not_of_the_model_gets_one_line(edges, more, message):
    with pytest.raises(tm.InputError, match=message) as error:
        circuits.all_edges(LINEAR, NOTHING, circuits.Graph(edges, **more), CLEANS[0])
    assert "\n" not in str(error.value)


def test_an_edge_that_skips_gets_one_line():
    model = tm.TwoLayer(hidden=2)
    params = model.init(KEY, jnp.zeros(3))["params"]
    edges = (("input", "hidden"), ("hidden", "output"), ("input", "output"))
    with pytest.raises(tm.InputError, match="from 'input' to 'output' skips"):
        circuits.all_edges(model, params, circuits.Graph(edges), jnp.zeros(3))
    graph = circuits.Graph(edges[:2])
    kept = circuits.all_edges(model, params, graph, jnp.zeros(3))
    assert {edge: edges.shape for edge, edges in kept.items()} == {
        ("input", "hidden"): (3, 2),
        ("hidden", "output"): (2, 3),
    }


def test_a_circuit_that_is_not_of_the_graph_gets_one_line():
    ones = circuits.all_edges(LINEAR, NOTHING, GRAPH, CLEANS[0])
    none = jax.tree.map(jnp.zeros_like, ones)
    few = {edge: kept for edge, kept in ones.items() if edge != ("input", "output")}
    wide = {**ones, ("input", "output"): jnp.ones((2, 2))}
    for kept, message in ((few, "differ at the edges"), (wide, "there are 3 senders and 2 rec")):
        with pytest.raises(tm.InputError, match=message):
            circuits.run(LINEAR, NOTHING, GRAPH, CLEANS[0], CORRUPTS[0], kept)
    with pytest.raises(tm.InputError, match="the circuit is empty"):
        circuits.minimality(BEHAVIOUR, none)
    for order in (jnp.arange(3), 1 + jnp.arange(16), jnp.zeros(16, int)):  # 16 edges are 0 to 15
        with pytest.raises(tm.InputError, match="does not hold each of the 16 edges once"):
            circuits.acdc(BEHAVIOUR, threshold=0.1, order=order)
    for corrupts in (CORRUPTS[:3], CORRUPTS[0]):
        with pytest.raises(tm.InputError, match="no batches of one size"):
            circuits.edge_patching(BEHAVIOUR.replace(corrupts=corrupts))
    for count, message in ((21, "too large"), (0, "num_edges is 0")):
        with pytest.raises(tm.InputError, match=message):
            circuits.all_circuits(count)
    with pytest.raises(tm.InputError, match="for each of 2\\^E"):
        circuits.minimal_circuits(jnp.ones(3, bool))


def test_a_metric_of_truth_values_counts_answers_that_turn():
    """An edge's damage is the share of answers that turn without it, and has no gradient."""
    signs = BEHAVIOUR.replace(metric=lambda output: output > 0)
    right = np.asarray(CLEANS @ (B @ A + C).T > 0)
    kept = np.asarray(CLEANS @ (B @ A).T + CORRUPTS @ C.T > 0)
    circuit = {edge: jnp.ones_like(one) for edge, one in signs.all_edges().items()}
    circuit["input", "output"] = jnp.zeros((3, 2))
    expected = (right != kept).sum(axis=1).mean()
    np.testing.assert_allclose(circuits.damage(signs, circuit), expected, rtol=1e-6)
    with pytest.raises(tm.InputError, match="bool, which has no gradient"):
        circuits.edge_attribution(signs)
