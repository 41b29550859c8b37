"""Gradient approximations of patching: exact where the model is linear, and wrong as computed."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import toymodels as tm
from toymodels import interventions as iv
from toymodels.theory import frames

MODEL = tm.ReLUOutput(hidden=2)
WEIGHTS = jnp.asarray(frames.regular_polygon(5))
LINEAR = {"weights": WEIGHTS, "bias": jnp.full(5, 5.0)}  # every ReLU is open
KINKED = {"weights": WEIGHTS, "bias": jnp.full(5, -0.1)}
X, OTHER = jnp.asarray([0.9, 0, 0.4, 0, 0.2]), jnp.asarray([0.1, 0.7, 0, 0, 0.5])
HIDDEN = iv.whole("hidden")


def squares(output):
    return jnp.sum(output[:3])


def effect(model, params, base, source, part, metric):
    on_source = tm.activations(model, params, source)
    patched = metric(iv.run(model, params, base, iv.patch(part, on_source)))
    return patched - metric(iv.run(model, params, base))


@pytest.mark.parametrize("part", [HIDDEN, iv.unit("hidden", 0), iv.whole("preactivation")])
def test_both_approximations_are_exact_inside_one_region_of_the_relus(part):
    true = effect(MODEL, LINEAR, X, OTHER, part, squares)
    first_order = iv.attribution_patching(MODEL, LINEAR, X, OTHER, part, squares)
    integrated = iv.integrated_patching(MODEL, LINEAR, X, OTHER, part, squares, num_steps=1)
    np.testing.assert_allclose(first_order, true, atol=1e-5)
    np.testing.assert_allclose(integrated, true, atol=1e-5)


def test_integrated_gradients_converge_to_the_effect_across_kinks():
    true = effect(MODEL, KINKED, X, OTHER, HIDDEN, squares)
    errors = [
        abs(iv.integrated_patching(MODEL, KINKED, X, OTHER, HIDDEN, squares, num_steps=n) - true)
        for n in (1, 100, 10_000)
    ]
    assert errors[2] < 1e-4
    rounding = 1e-6  # of sums over up to 10,000 gradients
    assert errors[2] <= errors[1] + rounding <= errors[0] + 2 * rounding


class Saturated(nn.Module):
    """The output is 1 - ReLU(1 - x), which is 1 for every x above 1."""

    @nn.compact
    def __call__(self, x):
        self.param("unused", nn.initializers.zeros, ())
        return 1 - nn.relu(1 - tm.Site(name="hidden")(x))


SATURATED = {"unused": jnp.zeros(())}


def test_a_saturated_unit_deceives_attribution_patching_in_both_directions():
    """The effect of a change from 0 to c > 1 is 1.

    The gradient at 0 says c, and the gradient at c says 0.
    """
    low, high = jnp.asarray(0.0), jnp.asarray(2.0)

    def same(output):
        return output

    arguments = (Saturated(), SATURATED)
    assert effect(*arguments, low, high, HIDDEN, same) == 1
    assert iv.attribution_patching(*arguments, low, high, HIDDEN, same) == 2
    assert iv.attribution_patching(*arguments, high, low, HIDDEN, same) == 0
    for number, expected in ((5, 0.8), (10, 1.0), (100, 1.0)):  # c floor(N / c + 1/2) / N
        measured = iv.integrated_patching(*arguments, low, high, HIDDEN, same, num_steps=number)
        np.testing.assert_allclose(measured, expected, atol=1e-6)


def test_scores_of_edges_are_the_effects_of_their_paths_in_a_linear_model():
    """The scores add up to the total effect, because every path is one edge."""
    scores = iv.edge_attribution(MODEL, LINEAR, X, OTHER, "hidden", "preactivation", squares)
    assert scores.shape == (2, 5)
    plain = squares(iv.run(MODEL, LINEAR, X))
    for sender in range(2):
        for receiver in range(5):
            output = iv.path_patching(
                MODEL,
                LINEAR,
                X,
                OTHER,
                iv.unit("hidden", sender),
                iv.unit("preactivation", receiver),
            )
            np.testing.assert_allclose(scores[sender, receiver], squares(output) - plain, atol=1e-5)
    np.testing.assert_allclose(
        scores.sum(), effect(MODEL, LINEAR, X, OTHER, HIDDEN, squares), atol=1e-5
    )


def test_averaged_scores_of_edges_add_up_to_the_effect_across_kinks():
    scores = iv.edge_attribution(
        MODEL, KINKED, X, OTHER, "hidden", "preactivation", squares, num_steps=1000
    )
    np.testing.assert_allclose(
        scores.sum(), effect(MODEL, KINKED, X, OTHER, HIDDEN, squares), atol=2e-3
    )


def test_a_metric_without_a_gradient_is_refused():
    """The gradient of a step is 0, which would say that no part has an effect."""
    with pytest.raises(tm.InputError, match="bool, which has no gradient"):
        iv.attribution_patching(MODEL, LINEAR, X, OTHER, HIDDEN, lambda y: y[0] > 0)


def test_edges_from_a_site_to_itself_are_refused():
    with pytest.raises(tm.InputError, match="sender and receiver are both 'hidden'"):
        iv.edge_attribution(MODEL, LINEAR, X, OTHER, "hidden", "hidden", squares)


def test_the_number_of_steps_is_checked():
    with pytest.raises(tm.InputError, match="num_steps is 0"):
        iv.integrated_patching(MODEL, LINEAR, X, OTHER, HIDDEN, squares, num_steps=0)
