"""Causal scrubbing against closed forms of the loss recovered and of the distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toymodels as tm
from toymodels import interventions as iv
from toymodels.theory import frames

NUMBER = 200_000
DIGON = {"weights": jnp.asarray([[1.0, -1.0]]), "bias": jnp.zeros(2)}
PENTAGON = {"weights": jnp.asarray(frames.regular_polygon(5)), "bias": jnp.zeros(5)}


def alone(features, site="output"):
    """Return the hypothesis that output i depends on feature i alone."""
    return [
        iv.Node(iv.unit(site, i), iv.keeping(features, [i])) for i in range(features.num_features)
    ]


def scrub(model, params, features, nodes, number=NUMBER):
    examples = features.sample(jax.random.key(0), number)
    loss = tm.Task(features).loss
    measure = tm.jit(lambda key: iv.scrub(key, model, params, examples, nodes, features, loss))
    return measure(jax.random.key(1))


def test_the_features_that_are_kept_may_be_known_only_when_the_program_runs():
    features = tm.SparseUniform(4, 0.5)
    example = jnp.full(4, 2.0)  # above every feature of the distribution
    drawn = jax.jit(lambda kept: iv.keeping(features, [0, kept])(jax.random.key(0), example))(2)
    np.testing.assert_array_equal(np.asarray(drawn) == 2, [True, False, True, False])


@pytest.mark.parametrize(("density", "distance"), [(0.3, 0.045600), (0.1, 0.006133)])
def test_loss_recovered_is_blind_to_a_digon_and_the_distance_is_not(density, distance):
    r"""The distance of a digon after its ReLU is twice the sum of $E \mathrm{Var}(y_i | x_i)$."""
    features = tm.SparseUniform(2, density)
    measured = scrub(tm.ReLUOutput(hidden=1), DIGON, features, alone(features))
    np.testing.assert_allclose(measured.recovered, 1, atol=0.01)
    p = density
    exact = 4 * p * ((1 - p) / 3 + p / 12 - (1 - p) ** 2 / 3 - (1 - p) * p / 4 - p**2 / 20)
    np.testing.assert_allclose(exact, distance, atol=1e-6)
    # Both features are active in 2,000 of the examples at density 0.1: a standard error of 2 %.
    np.testing.assert_allclose(measured.distance, exact, rtol=0.07)


def test_the_distance_before_the_relu_is_twice_the_interference():
    r"""The distance is $2 \sum_{i \ne j} G_{ij}^2 \mathrm{Var}(x_j)$ with $G = W^\top W$."""
    features = tm.SparseUniform(5, 0.3)
    measured = scrub(tm.LinearOutput(hidden=2), PENTAGON, features, alone(features))
    gram = np.asarray(PENTAGON["weights"].T @ PENTAGON["weights"], float)
    interference = (gram**2).sum() - (np.diag(gram) ** 2).sum()
    exact = 2 * interference * (0.3 / 3 - 0.3**2 / 4)
    np.testing.assert_allclose(exact, 1.1625, atol=1e-4)
    np.testing.assert_allclose(measured.distance, exact, rtol=0.02)
    np.testing.assert_allclose(measured.recovered, 1, atol=0.02)


def test_features_that_are_present_together_recover_more_than_everything():
    """The loss recovered by a digon of features that come together is $(5 - 4p)/(3 - 2p)$."""
    density = 0.3
    features = tm.CorrelatedSets(num_sets=1, size=2, density=density)

    # The hypothesis ignores that the features go together, so the scrubbed run draws the other
    # feature independently, with its own density.
    independent = tm.SparseUniform(2, density)
    nodes = alone(independent)
    examples = features.sample(jax.random.key(0), NUMBER)
    loss = tm.Task(features).loss
    measure = tm.jit(
        lambda key: iv.scrub(key, tm.ReLUOutput(hidden=1), DIGON, examples, nodes, features, loss)
    )
    measured = measure(jax.random.key(1))
    np.testing.assert_allclose(measured.loss, density / 3, rtol=0.02)
    np.testing.assert_allclose(measured.scrubbed, density**2 / 3, rtol=0.05)
    exact = (5 - 4 * density) / (3 - 2 * density)
    assert measured.recovered > 1
    np.testing.assert_allclose(measured.recovered, exact, atol=0.06)


def test_memory_grows_less_than_the_examples():
    """65,536 examples of 20 features took 14 GB when all of them were scrubbed at once."""
    features, model = tm.SparseUniform(10, 0.3), tm.ReLUOutput(hidden=3)
    key, loss = jax.random.key(0), tm.Task(features).loss
    params = model.init(key, jnp.zeros(10))["params"]

    def bytes_for(number):
        examples = jnp.zeros((number, 10))
        measure = jax.jit(lambda *of: iv.scrub(key, model, *of, alone(features), features, loss))
        return measure.lower(params, examples).compile().memory_analysis().temp_size_in_bytes

    assert bytes_for(8 * 1024) < 3 * bytes_for(1024)


def test_the_true_hypothesis_changes_no_output():
    features = tm.SparseUniform(5, 0.3)
    everything = [
        iv.Node(iv.whole("hidden"), iv.keeping(features, range(5))),
    ]
    measured = scrub(tm.ReLUOutput(hidden=2), PENTAGON, features, everything, number=100)
    np.testing.assert_allclose(measured.distance, 0, atol=1e-10)
    np.testing.assert_allclose(measured.recovered, 1, atol=1e-5)


def test_a_wrong_hypothesis_recovers_nothing():
    """Outputs of the wrong features are independent of the right ones."""
    features = tm.SparseUniform(4, 0.3)
    params = {"weights": jnp.eye(4), "bias": jnp.zeros(4)}
    wrong = [iv.Node(iv.unit("output", i), iv.keeping(features, [(i + 1) % 4])) for i in range(4)]
    measured = scrub(tm.ReLUOutput(hidden=4), params, features, wrong)
    np.testing.assert_allclose(measured.recovered, 0, atol=0.02)


def test_nodes_in_a_row_resample_what_lies_below_them():
    """The hidden value depends on all features, and so does what is computed from it."""
    features = tm.SparseUniform(5, 0.3)
    below = iv.Node(iv.whole("hidden"), iv.keeping(features, range(5)))
    row = [iv.Node(iv.whole("preactivation"), iv.keeping(features, range(5)), (below,))]
    measured = scrub(tm.ReLUOutput(hidden=2), PENTAGON, features, row, number=100)
    np.testing.assert_allclose(measured.distance, 0, atol=1e-10)
    lost = iv.Node(iv.whole("hidden"), iv.keeping(features, []))
    row = [iv.Node(iv.whole("preactivation"), iv.keeping(features, range(5)), (lost,))]
    measured = scrub(tm.ReLUOutput(hidden=2), PENTAGON, features, row)
    np.testing.assert_allclose(measured.recovered, 0, atol=0.03)


def test_matching_draws_an_example_with_an_equal_interpretation():
    examples = jnp.asarray([[0, 1], [0, 2], [1, 3], [1, 4], [1, 5]])
    resample = iv.matching(examples, lambda example: example[0])
    keys = jax.random.split(jax.random.key(0), 100)
    drawn = jax.vmap(lambda key: resample(key, jnp.asarray([1, 9])))(keys)
    assert set(np.asarray(drawn[:, 1]).tolist()) == {3, 4, 5}
    np.testing.assert_array_equal(resample(keys[0], jnp.asarray([7, 9])), [7, 9])


def test_an_interpretation_that_no_two_examples_share_is_refused():
    """Every example would be replaced by itself, so that any hypothesis would hold."""
    examples = jax.random.uniform(jax.random.key(0), (5, 2))
    with pytest.raises(tm.InputError, match="which others hardly share"):
        iv.matching(examples, lambda example: example[0])


def test_a_hypothesis_without_nodes_is_refused():
    features = tm.SparseUniform(2, 0.3)
    with pytest.raises(tm.InputError, match="no node"):
        iv.scrubbed_output(
            jax.random.key(0), tm.ReLUOutput(hidden=1), DIGON, jnp.ones(2), [], features
        )
