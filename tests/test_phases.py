"""The closed forms against the model itself, and against the exact loss in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize

from toymodels import features, models, tasks
from toymodels.analysis import phases as measured
from toymodels.theory import phases
from toymodels.theory.phases import Phase

# No deadline: the first example compiles. Derandomized: a failure comes back.
properties = settings(deadline=None, derandomize=True, max_examples=60)
densities = st.floats(0.01, 1)
importances = st.floats(0.05, 20)


def solution(phase, density):
    mean = density / 2
    return {
        Phase.NOT_REPRESENTED: ([1.0, 0.0], [0.0, mean]),
        Phase.DEDICATED: ([0.0, 1.0], [mean, 0.0]),
        Phase.SUPERPOSITION: ([1.0, -1.0], [0.0, 0.0]),
    }[phase]


def expected_loss(weights, bias, density, importance, points=64):
    """Midpoint rule over (0, 1]^2, of second order: 64 points miss by about 2e-5."""
    weights, bias = np.asarray(weights), np.asarray(bias)
    uniform = (np.arange(points) + 0.5) / points
    off, zero = 1 - density, np.zeros(1)
    first, second = np.meshgrid(uniform, uniform, indexing="ij")
    total = 0.0
    for chance, x in (
        (density**2, np.stack([first.ravel(), second.ravel()])),
        (density * off, np.stack([uniform, 0 * uniform])),
        (density * off, np.stack([0 * uniform, uniform])),
        (off**2, np.stack([zero, zero])),
    ):
        output = np.maximum(np.outer(weights, weights @ x) + bias[:, None], 0)
        total += chance * np.mean(np.array([1, importance]) @ (x - output) ** 2)
    return total


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(("density", "importance"), [(0.1, 0.3), (0.5, 1.0), (0.9, 4.0)])
def test_losses_are_those_of_the_model_on_samples(phase, density, importance):
    weights, bias = solution(phase, density)
    params = {"weights": jnp.array([weights]), "bias": jnp.array(bias)}
    task = tasks.Task(features.SparseUniform(2, density), importance=jnp.array([1.0, importance]))
    model = models.ReLUOutput(hidden=1)

    def loss(x):
        return task.loss(x, model.apply({"params": params}, x))

    samples = task.features.sample(jax.random.key(0), 100_000)
    errors = np.asarray(jax.vmap(loss)(samples), np.float64)
    standard_error = errors.std() / np.sqrt(errors.size)
    actual = phases.losses(density, importance)[phase]
    np.testing.assert_allclose(actual, errors.mean(), rtol=0, atol=4 * standard_error)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(("density", "importance"), [(0.05, 0.2), (0.4, 1.0), (1.0, 3.0)])
def test_losses_are_the_expected_ones(phase, density, importance):
    np.testing.assert_allclose(
        phases.losses(density, importance)[phase],
        expected_loss(*solution(phase, density), density, importance),
        rtol=1e-3,  # 2e-5 of the midpoint rule, and the least variance is 1/12
    )


@properties
@given(densities, importances)
def test_exchanging_the_features_exchanges_their_phases(density, importance):
    """With the importances divided by $r$, the extra feature becomes the first one."""
    ignored, dedicated, shared = phases.losses(density, importance)
    exchanged = importance * phases.losses(density, 1 / importance)
    np.testing.assert_allclose(exchanged, [dedicated, ignored, shared], rtol=1e-5)


@properties
@given(importances)
def test_losses_cross_at_the_boundary(importance):
    density = phases.boundary(importance)
    ignored, dedicated, shared = phases.losses(density, importance)
    np.testing.assert_allclose(shared, min(ignored, dedicated), rtol=1e-5)
    np.testing.assert_allclose(phases.boundary(1 / importance), density, rtol=1e-5)


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


def test_triple_point():
    triple = 4 / 7
    np.testing.assert_allclose(phases.boundary(1.0), triple, rtol=1e-6)
    # p/3 - p^2/4 and p^2/3 at p = 4/7
    np.testing.assert_allclose(phases.losses(triple, 1.0), 16 / 147, rtol=1e-6)
    assert phases.phase(0.9, 1.0) == Phase.NOT_REPRESENTED  # the first of equals


@pytest.mark.parametrize(
    ("importance", "density"), [(0.0, 0), (0.5, 4 / 9), (2.0, 4 / 9), (0.1, 0.16), (10.0, 0.16)]
)
def test_boundary_values(importance, density):
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


@pytest.mark.parametrize(("importance", "boundary"), phases.FREE_OPTIMUM_BOUNDARY.items())
def test_the_free_optimum_leaves_the_antipodal_branch_there(importance, boundary):
    def optimum(density):
        starts = [  # antipodal, weakly antipodal, ignoring the extra feature
            (0.95, -0.75, 0.1, 0.15),
            (0.85, -0.75, 0.25, 0.3),
            (0.95, -0.4, 0.15, 0.4),
            (1.01, -0.2, 0.03, 0.35),
            (1.0, 0.01, 0.0, density / 2),
        ]
        fits = [
            optimize.minimize(
                lambda params: expected_loss(params[:2], params[2:], density, importance, 32),
                start,
                method="BFGS",
                options={"gtol": 1e-6},
            )
            for start in starts
        ]
        return min(fits, key=lambda fit: fit.fun).x

    below, above = optimum(boundary - 0.004), optimum(boundary + 0.004)
    assert below[0] * below[1] < 0
    assert np.abs(below[:2]).min() > 0.6
    assert np.abs(above[:2]).min() < 0.55


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.0, 0.0], Phase.NOT_REPRESENTED),
        ([0.0, 0.0], Phase.NOT_REPRESENTED),
        ([1.0, -0.49], Phase.NOT_REPRESENTED),
        ([0.0, 1.0], Phase.DEDICATED),
        ([-0.7, 1.0], Phase.DEDICATED),
        ([-0.72, 1.0], Phase.SUPERPOSITION),
        ([1.0, -1.0], Phase.SUPERPOSITION),
        ([-1.0, 1.0], Phase.SUPERPOSITION),
        ([1.0, -0.51], Phase.SUPERPOSITION),
    ],
)
def test_planted_weights_are_labelled(weights, expected):
    assert measured.phase(jnp.array([weights])) == expected


def test_the_last_feature_of_several_is_the_extra_one():
    weights = jnp.array([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    assert measured.phase(weights) == Phase.DEDICATED
    assert measured.phase(weights[:, ::-1]) == Phase.SUPERPOSITION


@properties
@given(densities, importances)
def test_theory_and_measurement_speak_the_same_labels(density, importance):
    phase = Phase(int(phases.phase(density, importance)))
    weights, _ = solution(phase, density)
    assert measured.phase(jnp.array([weights])) == phase
