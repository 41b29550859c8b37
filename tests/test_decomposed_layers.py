"""Decomposition of two layers: the right answers, masks by hand, and what training must reach."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toymodels as tm
from toymodels import circuits


def gates(parts, constant):
    """Return gates that are `constant` for every input."""
    none = jnp.zeros((parts, 1))
    return circuits.Gates(none, none, none, jnp.full(parts, constant))


def layers(first, second, importance):
    """Return decomposed layers from pairs of left and right vectors."""
    return tuple(
        circuits.DecomposedLayer(
            jnp.asarray(left), jnp.asarray(right), gates(len(left), importance)
        )
        for left, right in (first, second)
    )


def network(first, second):
    """Return the layers of U ReLU(V x)."""
    first, second = jnp.asarray(first, float), jnp.asarray(second, float)
    return circuits.Layer(first, activation=jax.nn.relu), circuits.Layer(second)


FIRST = jnp.array([[1.0, 0, -2], [0.5, 3, 1]])  # two neurons, three inputs
SECOND = jnp.array([[1.0, 0], [2, -1], [0, 1]])
INPUTS = jnp.array([0.4, -0.3, 0.7])


def test_one_subcomponent_for_each_input_and_neuron_pays_only_for_importances():
    found = layers((FIRST.T, jnp.eye(3)), (SECOND.T, jnp.eye(2)), 1.0)
    pays_only_for(found, network(FIRST, SECOND), 5)


def pays_only_for(found, chain, importance):
    """Check that a decomposition is exact, and what its importances add up to."""
    uniform = jax.random.uniform(jax.random.key(0), (sum(len(own.left) for own in found),))
    loss = circuits.masks_loss(found, chain, INPUTS, uniform)
    np.testing.assert_allclose(circuits.unfaithfulness(found, chain), 0, atol=1e-12)
    np.testing.assert_allclose(loss.reconstruction, 0, atol=1e-12)
    np.testing.assert_allclose(loss.importance, importance, rtol=1e-6)


def test_masks_of_one_number_are_those_by_hand():
    """The output of V = 2, U = 3 and x = 1/2 is 3, and masks of r and s make it 3 r s."""
    found = layers(([[2.0]], [[0.9]]), ([[3.0]], [[1.0]]), 0.2)
    r, s = 0.2 + 0.8 * 0.25, 0.2 + 0.8 * 0.5
    uniform, chain = jnp.array([0.25, 0.5]), network([[2.0]], [[3.0]])
    loss = circuits.masks_loss(found, chain, jnp.array([0.5]), uniform)
    both, first, second = 3 * 0.9 * r * s, 3 * 0.9 * r, 3 * s
    errors = (both - 3) ** 2 + ((first - 3) ** 2 + (second - 3) ** 2) / 2
    np.testing.assert_allclose(circuits.unfaithfulness(found, chain), 0.2**2, rtol=1e-5)
    np.testing.assert_allclose(loss.reconstruction, errors, rtol=1e-5)
    np.testing.assert_allclose(loss.importance, 0.4, rtol=1e-6)


def three_random_layers():
    """Return layers of 4, 3, 2 and 5 numbers, their decomposition and its gates as tuples."""
    random, sizes, parts = np.random.default_rng(0), (4, 3, 2, 5), (3, 2, 4)
    weights = [random.normal(size=(b, a)) for a, b in itertools.pairwise(sizes)]
    bias = random.normal(size=5)
    found = [
        (random.normal(size=(k, b)), random.normal(size=(k, a)), random.normal(size=(4, k, 2)))
        for k, (a, b) in zip(parts, itertools.pairwise(sizes), strict=True)
    ]
    return weights, bias, found


def loss_by_hand(weights, bias, found, x, uniform):
    """Return reconstruction, importance and unfaithfulness from the equations."""
    ends = [np.tanh, lambda h: h, lambda h: np.maximum(h + bias, 0)]
    masks, importance, unfaithful, hidden, number = [], 0.0, 0.0, x, 0
    for matrix, end, (left, right, gates) in zip(weights, ends, found, strict=True):
        inner = gates[0] * (right @ hidden)[:, None] + gates[1]
        units = inner / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        logit = np.sum(gates[2] * units, axis=1) + gates[3, :, 0]
        low = np.where(logit < 0, 0.01 * logit, np.minimum(logit, 1))
        masks.append(low + (1 - low) * uniform[number : number + len(low)])
        high = np.where(logit > 1, 0.99 + 0.01 * logit, np.maximum(logit, 0))
        importance += np.sum(high)
        unfaithful += np.mean((matrix - left.T @ right) ** 2)
        hidden, number = end(matrix @ hidden), number + len(low)

    def error(masked):
        out = x
        for k, (matrix, end, (left, right, _)) in enumerate(zip(weights, ends, found, strict=True)):
            out = end((left.T * masks[k] @ right if k in masked else matrix) @ out)
        return np.mean((out - hidden) ** 2)

    alone = np.mean([error({k}) for k in range(3)])
    return error({0, 1, 2}) + alone, importance, unfaithful


@pytest.mark.parametrize("ascents", [0, 3])
def test_the_loss_of_three_layers_and_its_attack_are_those_of_the_equations(ascents):
    weights, bias, found = three_random_layers()
    chain = (
        circuits.Layer(jnp.asarray(weights[0]), activation=jnp.tanh),
        circuits.Layer(jnp.asarray(weights[1])),
        circuits.Layer(jnp.asarray(weights[2]), jnp.asarray(bias), jax.nn.relu),
    )
    decomposed = tuple(
        circuits.DecomposedLayer(
            jnp.asarray(left), jnp.asarray(right), circuits.Gates(*own[:3], own[3, :, 0])
        )
        for left, right, own in ((a, b, jnp.asarray(c)) for a, b, c in found)
    )
    x, uniform = np.array([0.5, -1, 0.3, 2]), np.random.default_rng(1).random(9)
    attack = circuits.Adversary(ascents=ascents, step=0.2)
    loss = circuits.masks_loss(
        decomposed, chain, jnp.asarray(x), jnp.asarray(uniform), adversary=attack
    )
    for _ in range(ascents):  # by differences of the reconstruction in each mask
        steps = 1e-5 * np.eye(9)
        slopes = [
            loss_by_hand(weights, bias, found, x, uniform + step)[0]
            - loss_by_hand(weights, bias, found, x, uniform - step)[0]
            for step in steps
        ]
        uniform = np.clip(uniform + 0.2 * np.sign(slopes), 0, 1)
    losses = (*loss, circuits.unfaithfulness(decomposed, chain))
    expected = loss_by_hand(weights, bias, found, x, uniform)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_an_input_that_no_neuron_passes_on_has_no_error():
    found = layers((FIRST.T, jnp.eye(3)), (SECOND.T, jnp.eye(2)), 0.0)
    silent = jnp.array([-1.0, -1, 0])  # both preactivations are negative, and stay so
    loss = circuits.masks_loss(found, network(FIRST, SECOND), silent, jnp.full(5, 0.5))
    np.testing.assert_allclose([loss.reconstruction, loss.importance], 0, atol=1e-12)


def test_masks_of_0_and_1_take_subcomponents_away_and_leave_them():
    found = layers((FIRST.T, jnp.eye(3)), (SECOND.T, jnp.eye(2)), 0.0)
    chain, kept = network(FIRST, SECOND), jnp.array([1.0, 0, 1, 1, 0])
    output = circuits.masked_output(found, chain, INPUTS, kept)
    first, second = np.array([1.0, 0, 1]), np.array([1.0, 0])
    hidden = np.maximum(FIRST @ (first * INPUTS), 0)
    np.testing.assert_allclose(output, SECOND @ (second * hidden), rtol=1e-6)
    everything = circuits.masked_output(found, chain, INPUTS, jnp.ones(5))
    np.testing.assert_allclose(everything, chain[1](chain[0](INPUTS)), rtol=1e-6)


def test_importances_read_the_input_and_the_rectified_neurons():
    """A gate GELU(h) of a large h is h, and of a very negative h it is 0."""
    one = circuits.Gates(jnp.ones((1, 1)), jnp.zeros((1, 1)), jnp.full((1, 1), 0.01), jnp.zeros(1))
    layer = circuits.DecomposedLayer(jnp.ones((1, 1)), jnp.ones((1, 1)), one)
    found, chain = (layer, layer), network([[2.0]], [[1.0]])
    for x, expected in ((20.0, (0.2, 0.4)), (-20.0, (0, 0))):
        importance = circuits.layers_importances(found, chain, jnp.array([x]))
        np.testing.assert_allclose(np.ravel(importance), expected, atol=1e-6)


def decompose(**changed):
    recipe = tm.Recipe(steps=300, batch=16, learning_rate=2e-2)
    given = {
        "layers": network(jnp.eye(2), jnp.eye(2)),
        "sample": tm.SignedSparseUniform(2, 0.5).sample,
        "parts": (3, 2),
        "minimality": 1e-3,
        **changed,
    }
    return circuits.decompose_layers(
        jax.random.key(0), gate_units=2, optimizer=recipe.optimizer(), steps=300, batch=16, **given
    )


def test_training_makes_the_sums_of_subcomponents_the_matrices():
    found = jax.jit(decompose)()
    assert [layer.left.shape for layer in found] == [(3, 2), (2, 2)]
    for layer in found:
        np.testing.assert_allclose(layer.left.T @ layer.right, jnp.eye(2), atol=0.05)


def test_an_adversary_finds_the_worst_corner_where_the_error_is_convex():
    # In a linear layer the error is convex in each mask, so that no random mask is worse.
    found, layers = one_layer()
    x = jnp.array([1.0, 2, 1])
    corners = jnp.stack(jnp.meshgrid(*[jnp.array([0.0, 1])] * 3), -1).reshape(-1, 3)

    def loss(uniform, adversary=None):
        return circuits.masks_loss(found, layers, x, uniform, adversary=adversary).reconstruction

    worst = max(float(loss(corner)) for corner in corners)
    start = jax.random.uniform(jax.random.key(1), (3,))
    attacked = loss(start, circuits.Adversary(ascents=2, step=1.0))
    np.testing.assert_allclose(attacked, worst, rtol=1e-6)
    assert float(loss(start)) < worst


def one_layer():
    """Return a linear layer of positive numbers, whose subcomponents all pull the same way."""
    weights = jnp.array([[1.0, 2, 3], [2, 1, 1]])
    found = circuits.DecomposedLayer(weights.T, jnp.eye(3), gates(3, 0.0))
    return (found,), (circuits.Layer(weights),)


def test_with_an_identity_between_two_layers_both_can_be_taken_apart_exactly():
    # The right subcomponents of all three matrices pay for their importances, and for nothing else.
    weights = jnp.array([[1.0, -1, 0], [0, 1, -1]])
    chain = (
        circuits.Layer(weights),
        circuits.Layer(jnp.eye(2)),
        circuits.Layer(weights.T, jnp.full(3, -0.1), jax.nn.relu),
    )
    found = (
        circuits.DecomposedLayer(weights.T, jnp.eye(3), gates(3, 1.0)),
        circuits.DecomposedLayer(jnp.eye(2), jnp.eye(2), gates(2, 1.0)),
        circuits.DecomposedLayer(jnp.eye(3), weights.T, gates(3, 1.0)),
    )
    pays_only_for(found, chain, 8)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"parts": (3, 0)}, "parts is 0"),
        ({"minimality": -1.0}, "minimality is -1, outside"),
        ({"parts": (3,)}, "layers has 2 and parts has 1 layers"),
        ({"adversary": circuits.Adversary(ascents=1, step=-1.0)}, "step is -1, outside"),
        ({"adversary": circuits.Adversary(ascents=-1, step=1.0)}, "ascents is -1"),
    ],
)
def test_bad_input_is_named(changed, message):
    with pytest.raises(tm.InputError, match=message):
        decompose(**changed)
