"""The closed forms against the model itself, and against the exact loss in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from toymodels import features, models, plotting, tasks
from toymodels.analysis import phases as measured
from toymodels.theory import phases
from toymodels.theory.loss import expected_loss
from toymodels.theory.minima import free_optimum
from toymodels.theory.phases import Phase

properties = settings(max_examples=60)
densities = st.floats(0.01, 1)
importances = st.floats(0.05, 20)


def solution(phase, density, hidden):
    """Return weights and bias, with the extra feature last and unit vectors for the other ones."""
    mean = density / 2
    pairs = {
        Phase.NOT_REPRESENTED: ([1.0, 0.0], [0.0, mean]),
        Phase.DEDICATED: ([0.0, 1.0], [mean, 0.0]),
        Phase.SUPERPOSITION: ([1.0, -1.0], [0.0, 0.0]),
    }
    if phase == Phase.DEDICATED_BESIDE_PAIR:
        weights = np.eye(hidden, hidden + 1, k=1)
        weights[0, 0] = -1.0
        return weights, np.zeros(hidden + 1)
    row, bias = pairs[phase]
    weights = np.zeros((hidden, hidden + 1))
    weights[:-1, : hidden - 1] = np.eye(hidden - 1)
    weights[-1, -2:] = row
    return weights, np.array([0.0] * (hidden - 1) + bias)


def cases(hidden):
    return [phase for phase in Phase if hidden > 1 or phase != Phase.DEDICATED_BESIDE_PAIR]


both = pytest.mark.parametrize(
    ("hidden", "phase"), [(hidden, phase) for hidden in (1, 2, 4) for phase in cases(hidden)]
)


@both
@pytest.mark.parametrize(("density", "importance"), [(0.1, 0.3), (0.5, 1.0), (0.9, 4.0)])
def test_losses_are_those_of_the_model_on_samples(hidden, phase, density, importance):
    weights, bias = solution(phase, density, hidden)
    params = {"weights": jnp.asarray(weights), "bias": jnp.asarray(bias)}
    importances = jnp.ones(hidden + 1).at[-1].set(importance)
    task = tasks.Task(features.SparseUniform(hidden + 1, density), importance=importances)
    model = models.ReLUOutput(hidden)

    def loss(x):
        return task.loss(x, model.apply({"params": params}, x))

    samples = task.features.sample(jax.random.key(0), 100_000)
    errors = np.asarray(jax.vmap(loss)(samples), np.float64)
    standard_error = errors.std() / np.sqrt(errors.size)
    actual = phases.losses(density, importance, hidden=hidden)[phase]
    np.testing.assert_allclose(actual, errors.mean(), rtol=0, atol=4 * standard_error)


@both
@pytest.mark.parametrize(("density", "importance"), [(0.05, 0.2), (0.4, 1.0), (1.0, 3.0)])
def test_losses_are_the_exact_ones(hidden, phase, density, importance):
    weights, bias = solution(phase, density, hidden)
    importances = np.array([1.0] * hidden + [importance])
    np.testing.assert_allclose(
        phases.losses(density, importance, hidden=hidden)[phase],
        expected_loss(weights, bias, density, importances),
        rtol=1e-6,  # float32
    )


@properties
@given(densities, importances)
def test_exchanging_the_features_exchanges_their_phases(density, importance):
    """The extra feature becomes the first one if the importances are divided by $r$."""
    ignored, dedicated, shared = phases.losses(density, importance)
    exchanged = importance * phases.losses(density, 1 / importance)
    np.testing.assert_allclose(exchanged, [dedicated, ignored, shared], rtol=1e-5)


@properties
@given(importances, st.integers(1, 3))
def test_losses_cross_at_the_boundary(importance, hidden):
    density = phases.boundary(importance, hidden=hidden)
    ignored, dedicated, *shared = phases.losses(density, importance, hidden=hidden)
    np.testing.assert_allclose(min(shared), min(ignored, dedicated), rtol=1e-5)


@properties
@given(importances)
def test_the_boundary_of_two_features_does_not_know_which_is_which(importance):
    np.testing.assert_allclose(
        phases.boundary(1 / importance), phases.boundary(importance), rtol=1e-5
    )


@properties
@given(densities, importances)
def test_three_features_have_the_phases_of_the_paper(density, importance):
    """The diagram is that of two features for r < 1, and has a boundary at 4/7 for r > 1."""
    assume(abs(importance - 1) > 1e-4)
    boundary = float(phases.boundary(importance, hidden=2))
    assume(abs(density - boundary) > 1e-4)
    if importance < 1:
        expected = phases.phase(density, importance)
    else:
        np.testing.assert_allclose(boundary, 4 / 7, rtol=1e-6)
        expected = Phase.DEDICATED_BESIDE_PAIR if density < 4 / 7 else Phase.DEDICATED
    assert phases.phase(density, importance, hidden=2) == expected


@properties
@given(densities, importances)
def test_superposition_is_the_phase_below_the_boundary(density, importance):
    boundary = float(phases.boundary(importance))
    assume(min(abs(density - boundary), abs(importance - 1)) > 1e-4)  # else a tie, to rounding
    if density < boundary:
        expected = Phase.SUPERPOSITION
    else:
        expected = Phase.NOT_REPRESENTED if importance < 1 else Phase.DEDICATED
    assert phases.phase(density, importance) == expected


def test_three_phases_meet_at_density_four_sevenths():
    triple = 4 / 7
    np.testing.assert_allclose(phases.boundary(1.0), triple, rtol=1e-6)
    # p/3 - p^2/4 and p^2/3 at p = 4/7
    np.testing.assert_allclose(phases.losses(triple, 1.0), 16 / 147, rtol=1e-6)
    assert phases.phase(0.9, 1.0) == Phase.NOT_REPRESENTED  # the first of equals


@pytest.mark.parametrize(
    ("importance", "density"), [(0.0, 0), (0.5, 4 / 9), (2.0, 4 / 9), (0.1, 0.16), (10.0, 0.16)]
)
def test_the_boundary_has_the_known_values(importance, density):
    np.testing.assert_allclose(phases.boundary(importance), density, rtol=1e-6)


def test_a_phase_diagram_is_a_vmap():
    importance, density = jnp.array([0.1, 1.0, 10.0]), jnp.array([0.01, 0.9])
    diagram = jax.jit(jax.vmap(jax.vmap(phases.phase, (None, 0)), (0, None)))(density, importance)
    np.testing.assert_array_equal(
        diagram,
        [
            [Phase.SUPERPOSITION] * 3,
            [Phase.NOT_REPRESENTED, Phase.NOT_REPRESENTED, Phase.DEDICATED],
        ],
    )


@pytest.mark.parametrize(
    ("density", "importance", "message"),
    [(0.0, 1.0, "density is 0"), (1.5, 1.0, "density is 1.5"), (0.5, -1.0, "importance is -1")],
)
def test_impossible_numbers_are_refused(density, importance, message):
    with pytest.raises(ValueError, match=message):
        phases.losses(density, importance)


def test_the_free_optimum_leaves_the_antipodal_branch_there():
    """BFGS found the boundary on a quadrature rule.

    Here it is found again from the exact loss, with more starts.
    """
    importance, boundary = (
        np.array(list(part)) for part in zip(*phases.FREE_OPTIMUM_BOUNDARY.items(), strict=True)
    )
    with jax.enable_x64(True):

        def weights(importance, density):
            return free_optimum(
                jax.random.key(0), 1, jnp.full(2, density), jnp.stack([1.0, importance])
            ).weights[0]

        lowest = jax.jit(jax.vmap(weights))
        below = np.asarray(lowest(importance, boundary - 0.001))
        above = np.asarray(lowest(importance, boundary + 0.001))
    assert (below.prod(axis=1) < 0).all()
    assert (np.abs(below).min(axis=1) > 0.6).all()
    assert (np.abs(above).min(axis=1) < 0.55).all()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.0, 0.0], Phase.NOT_REPRESENTED),
        ([0.0, 0.0], Phase.NOT_REPRESENTED),
        ([1.0, -0.49], Phase.NOT_REPRESENTED),
        ([0.0, 1.0], Phase.DEDICATED),
        ([-0.49, 1.0], Phase.DEDICATED),
        ([-0.51, 1.0], Phase.SUPERPOSITION),
        ([1.0, -1.0], Phase.SUPERPOSITION),
        ([-1.0, 1.0], Phase.SUPERPOSITION),
        ([1.0, -0.51], Phase.SUPERPOSITION),
    ],
)
def test_planted_weights_are_labelled(weights, expected):
    assert measured.phase(jnp.array([weights])) == expected


def test_the_last_feature_of_several_is_the_extra_one():
    weights = jnp.array([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    assert measured.phase(weights) == Phase.DEDICATED_BESIDE_PAIR
    assert measured.phase(weights[:, ::-1]) == Phase.SUPERPOSITION


@both
def test_theory_and_measurement_speak_the_same_labels(hidden, phase):
    weights, _ = solution(phase, 0.5, hidden)
    assert measured.phase(jnp.asarray(weights)) == phase


@properties
@given(st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)))
def test_labels_of_exchanged_features_mirror_each_other(weights):
    assume(all(abs(abs(weight) - 0.5) > 1e-3 for weight in weights))
    mirror = {
        Phase.NOT_REPRESENTED: {Phase.DEDICATED, Phase.NOT_REPRESENTED},
        Phase.DEDICATED: {Phase.NOT_REPRESENTED},
        Phase.SUPERPOSITION: {Phase.SUPERPOSITION},
    }
    label, exchanged = (
        Phase(int(measured.phase(jnp.array([row])))) for row in (weights, weights[::-1])
    )
    assert exchanged in mirror[label]


def test_phases_have_colors_of_their_own():
    colors = plotting.phase_colors(list(Phase))
    assert len({tuple(color) for color in colors}) == len(Phase)


def test_a_grid_is_refused():
    with pytest.raises((ValueError, TypeCheckError), match="density"):
        phases.phase(jnp.array([0.1, 0.9]), 1.0)
