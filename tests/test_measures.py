"""Rules for every measure: NaN is no number, whole numbers are numbers, one model at a time."""

import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from toymodels import analysis
from toymodels.analysis import (
    activity,
    adversarial,
    attention,
    attribution,
    baselines,
    classification,
    concepts,
    dictionaries,
    erasure,
    geometry,
    irreducibility,
    learning_coefficient,
    linearity,
    manifolds,
    modular_addition,
    motifs,
    neurons,
    phases,
    polytopes,
    probing,
    readouts,
    reconstruction,
    sparse_coding,
    subcomponents,
    superposition,
    virtual_weights,
    visualization,
)
from toymodels.errors import InputError

WEIGHTS = np.array([[3, 0, 1, 2], [0, 2, 1, 0], [1, 1, 0, 4]])
DICTIONARY = np.array([[3, 0, 2, 1, 1], [0, 2, 0, 1, 0], [1, 1, 3, 0, 1]])
ROWS = np.array([[1, 0, 3], [0, 2, 1], [4, 1, 0], [1, 1, 1], [2, 0, 5], [0, 3, 1]])
OTHER_ROWS = np.array([[1, 0, 2], [0, 2, 1], [3, 1, 0], [1, 0, 1], [2, 0, 4], [0, 3, 1]])
LATENTS = np.array([[1, 0, 2, 0, 0], [0, 3, 0, 0, 1], [1, 0, 0, 0, 2], [0, 0, 1, 0, 0]])
FEATURES = np.array([[1, 0, 0, 2], [0, 3, 0, 0], [1, 0, 2, 0], [0, 0, 1, 1]])
SCORES = np.array([3, 1, 0, 2, 5, 1])
LABELS = np.array([True, False, False, True, True, False])
MATCHING = np.array([0, 1, 2, 3])
VECTOR = np.array([1, 0, 3])
PAIRS = np.array([[[1, 0, 3], [0, 2, 1]], [[4, 1, 0], [1, 1, 1]]])
METRIC = np.array([[3, 1, 0], [1, 2, 0], [0, 0, 1]])
PATTERN = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
DISTANCES = np.array([[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]])
PARTS = np.array([[2, 0, 1], [0, 1, 1], [1, 3, 0]])
TOKENS = np.array([[1, 0], [0, 1], [1, 0]])
ANY_KEY = jax.random.key(0)


def relu(features):
    return jax.nn.relu(jnp.asarray(WEIGHTS, features.dtype) @ features - 2)


# Each public function: the arrays of real numbers that it takes first, and whatever else.
MEASURES = {
    adversarial.attacks: ([WEIGHTS], {}),
    adversarial.harm: ([WEIGHTS, FEATURES[0], FEATURES], {"size": 2}),
    adversarial.harm_without_features: ([WEIGHTS, FEATURES[0]], {"size": 2}),
    attention.composition_score: ([METRIC, ROWS[:3]], {}),
    attention.copying_score: ([METRIC], {}),
    attention.induction_score: ([PATTERN, TOKENS], {}),
    attention.logit_lens: ([ROWS, ROWS], {}),
    attention.ov_circuit: ([ROWS, METRIC], {}),
    attention.previous_token_score: ([PATTERN], {}),
    attention.qk_circuit: ([ROWS, OTHER_ROWS], {}),
    attribution.gradient_times_input: (None, "takes a function"),
    attribution.integrated_gradients: (None, "takes a function"),
    attribution.sampled_shapley_values: (None, "takes a function"),
    attribution.shapley_values: (None, "takes a function"),
    attribution.relu_integrated_gradients: ([VECTOR, np.array(-1), ROWS[0], ROWS[1]], {}),
    baselines.principal_components: ([ROWS], {"components": 2}),
    baselines.independent_components: (None, "below"),
    baselines.nonnegative_factors: (None, "below"),
    concepts.causal_metric: ([ROWS], {}),
    concepts.cosines: ([ROWS, METRIC], {}),
    concepts.held_out_cosines: ([ROWS], {}),
    concepts.hierarchy_cosines: ([VECTOR, ROWS, METRIC], {}),
    concepts.simplex_deviation: ([ROWS, METRIC], {}),
    dictionaries.absorption_rate: (
        [LATENTS, DICTIONARY, FEATURES, WEIGHTS],
        {"matching": MATCHING, "min_share": 0.5},
    ),
    activity.dead_fraction: ([LATENTS], {}),
    reconstruction.explained_variance: ([ROWS, OTHER_ROWS], {"centred": True}),
    activity.firing: ([LATENTS], {"active": FEATURES > 0, "matching": MATCHING}),
    dictionaries.hedging_degree: ([DICTIONARY, WEIGHTS], {"matching": MATCHING}),
    activity.l0: ([LATENTS], {}),
    dictionaries.match: ([DICTIONARY, WEIGHTS], {}),
    dictionaries.matched_cosines: ([DICTIONARY, WEIGHTS], {"matching": MATCHING}),
    dictionaries.mcc: ([DICTIONARY, WEIGHTS], {}),
    dictionaries.mean_max_cosine: ([WEIGHTS, DICTIONARY], {}),
    reconstruction.shrinkage: ([ROWS, OTHER_ROWS], {}),
    dictionaries.uniqueness: ([DICTIONARY, WEIGHTS], {}),
    erasure.features_lost: ([ROWS, OTHER_ROWS], {}),
    erasure.least_squares_auroc: ([ROWS, OTHER_ROWS], {}),
    erasure.presence_auroc: (None, "takes a function"),
    erasure.moments: ([ROWS, OTHER_ROWS[:, :2]], {}),
    erasure.least_squares_eraser: ([VECTOR, METRIC, METRIC[:, :1]], {}),
    geometry.dimensions_per_feature: ([WEIGHTS], {}),
    geometry.eigenvector_residual: ([WEIGHTS], {}),
    geometry.feature_dimensionality: ([WEIGHTS], {}),
    geometry.feature_norms: ([WEIGHTS], {}),
    geometry.gram: ([WEIGHTS], {}),
    geometry.num_represented: ([WEIGHTS], {}),
    geometry.superposition: ([WEIGHTS], {}),
    geometry.unit_columns: ([WEIGHTS], {}),
    irreducibility.mixture_index: ([ROWS, METRIC, VECTOR], {}),
    irreducibility.separability_index: ([ROWS[:, :2], VECTOR], {"num_bins": 3}),
    learning_coefficient.learning_coefficient: (None, "refuses what is not a float by itself"),
    linearity.additivity: ([FEATURES], {"encode": relu}),
    linearity.analogy_accuracy: ([PAIRS], {"exclude_inputs": False}),
    linearity.parallelogram_error: ([PAIRS], {}),
    linearity.scaling: ([FEATURES[0], VECTOR], {"encode": relu}),
    linearity.side_effects: ([np.stack([METRIC, ROWS[:3]])], {}),
    linearity.steer: (None, "takes a model"),
    linearity.steering_effects: ([WEIGHTS, FEATURES[0]], {"amount": 2, "activation": jax.nn.relu}),
    linearity.steering_vectors: ([WEIGHTS], {}),
    manifolds.cosine_by_distance: ([WEIGHTS], {"distances": DISTANCES}),
    manifolds.distortion: ([WEIGHTS], {"distances": DISTANCES}),
    modular_addition.logits: ([ROWS, OTHER_ROWS, ROWS], {}),
    modular_addition.norm: ([ROWS, OTHER_ROWS, ROWS], {}),
    modular_addition.normalised_margin: ([ROWS, OTHER_ROWS, ROWS], {}),
    modular_addition.restricted: ([np.stack([METRIC, ROWS[:3], PARTS])], {}),
    modular_addition.spectrum: (None, "returns complex numbers"),
    motifs.asymmetric: ([WEIGHTS, WEIGHTS.T], {}),
    motifs.relabelled: (None, "takes a random generator"),
    motifs.shuffled: (None, "takes a random generator"),
    neurons.alignment: ([WEIGHTS], {}),
    neurons.random_alignment: (None, "takes a number"),
    neurons.code: ([WEIGHTS], {}),
    neurons.code_words: ([WEIGHTS], {}),
    neurons.features_served: ([WEIGHTS], {}),
    neurons.flagged: ([WEIGHTS], {}),
    neurons.monosemantic: ([WEIGHTS], {}),
    neurons.rescaled: ([WEIGHTS, WEIGHTS.T], {}),
    phases.phase: ([WEIGHTS], {}),
    polytopes.identify: ([WEIGHTS], {}),
    classification.accuracy: ([SCORES], {"labels": LABELS}),
    classification.auroc: ([SCORES], {"labels": LABELS}),
    readouts.binary_states: (None, "its states are those of all densities"),
    readouts.decoding_directions: ([WEIGHTS, FEATURES[0]], {"noise": 1}),
    probing.difference_of_means: ([ROWS], {"labels": LABELS}),
    probing.logistic: ([ROWS], {"labels": LABELS, "penalty": 1}),
    probing.mass_mean: ([ROWS], {"labels": LABELS}),
    classification.placements: ([SCORES], {"labels": LABELS}),
    readouts.posterior_log_odds: (
        [ROWS, ROWS, SCORES],
        {"labels": LABELS, "noise": 1},
    ),
    probing.ridge: ([ROWS], {"labels": LABELS, "penalty": 1}),
    probing.scores: (None, "takes a probe first"),
    probing.selectivity: (None, "takes functions first"),
    sparse_coding.lasso_codes: ([DICTIONARY, VECTOR], {"penalty": 1, "iterations": 20}),
    sparse_coding.pursuit_codes: ([DICTIONARY, VECTOR], {"active": 2}),
    subcomponents.chance_cosine: (None, "takes a number"),
    subcomponents.column_cosines: ([PARTS, DICTIONARY[:, :4], WEIGHTS], {}),
    subcomponents.identity_error: ([METRIC], {}),
    subcomponents.length_ratios: ([PARTS, DICTIONARY[:, :4], WEIGHTS], {}),
    subcomponents.lengths: ([PARTS, DICTIONARY[:, :4]], {}),
    subcomponents.pair_errors: ([PARTS, DICTIONARY[:, :4], WEIGHTS], {}),
    subcomponents.recovery_errors: ([PARTS, DICTIONARY[:, :4], WEIGHTS], {}),
    subcomponents.sum_error: ([PARTS, DICTIONARY[:, :4], WEIGHTS], {}),
    superposition.absolute_interference: ([WEIGHTS], {}),
    superposition.capacity_saturation: ([WEIGHTS], {}),
    superposition.coherence: ([WEIGHTS], {}),
    superposition.effective_features: ([LATENTS], {}),
    superposition.effective_number: ([SCORES], {}),
    superposition.effective_rank: ([WEIGHTS], {}),
    superposition.excess_coherence: ([WEIGHTS], {}),
    superposition.feature_polysemanticity: ([WEIGHTS], {}),
    virtual_weights.loss_contributions: ([WEIGHTS], {"loss": lambda virtual: jnp.sum(virtual**2)}),
    superposition.neuron_polysemanticity: ([WEIGHTS], {}),
    superposition.participation_ratio: ([WEIGHTS], {}),
    virtual_weights.real_and_interference: ([WEIGHTS, WEIGHTS[::-1]], {}),
    superposition.squared_interference: ([WEIGHTS], {}),
    superposition.squared_neuron_polysemanticity: ([WEIGHTS], {}),
    visualization.activation_maximum: (None, "takes a function"),
    visualization.maximally_activating_examples: (None, "takes a function"),
    visualization.response_curves: (None, "takes a function"),
    visualization.linear_activation_maximum: ([VECTOR], {}),
}
TAKING_ARRAYS = {
    f"{measure.__module__.rpartition('.')[2]}.{measure.__name__}": (measure, arrays, others)
    for measure, (arrays, others) in MEASURES.items()
    if arrays is not None
}
CANNOT_SAY_NAN = {
    "dictionaries.match",
    "motifs.asymmetric",
    "neurons.code_words",
    "neurons.features_served",
    "neurons.monosemantic",
    "polytopes.identify",
}

# The rows of a pattern add up to 1, so that 40 times a pattern is none.
OF_SCALE_ONE = {"attention.induction_score", "attention.previous_token_score"}

every_measure = pytest.mark.parametrize("name", TAKING_ARRAYS)


def measured(name, arrays):
    measure, _, others = TAKING_ARRAYS[name]
    # The tests' own annotations, floats of JAX, are what a user may leave.
    function = inspect.unwrap(measure)
    parameters = [p for p in inspect.signature(function).parameters if p not in others]
    return function(**dict(zip(parameters, arrays, strict=False)), **others)


def numbers(result):
    return np.concatenate([np.ravel(leaf).astype(float) for leaf in jax.tree.leaves(result)])


def test_the_table_is_complete():
    modules = [
        importlib.import_module(f"{analysis.__name__}.{module.name}")
        for module in pkgutil.iter_modules(analysis.__path__)
        if module.name != "sampling"  # a method, not a measure
    ]
    public = [
        getattr(module, name) for module in modules for name in getattr(module, "__all__", ())
    ]
    assert {function for function in public if inspect.isfunction(function)} == set(MEASURES)


@every_measure
def test_whole_numbers_are_numbers(name):
    _, arrays, _ = TAKING_ARRAYS[name]
    for scale, dtypes in ((1, (np.int32, np.uint8)), (40, (np.uint8,))):
        given = [(1 if name in OF_SCALE_ONE else scale) * array for array in arrays]
        expected = measured(name, [np.asarray(array, np.float32) for array in given])
        for dtype in dtypes:
            actual = measured(name, [array.astype(dtype) for array in given])
            if name == "polytopes.identify":
                assert actual == expected
                continue
            np.testing.assert_allclose(numbers(actual), numbers(expected), rtol=1e-5, atol=1e-6)


@every_measure
def test_truth_values_are_numbers(name):
    _, arrays, _ = TAKING_ARRAYS[name]
    given = [array > 0 for array in arrays]
    expected = measured(name, [array.astype(np.float32) for array in given])
    actual = measured(name, given)
    if name == "polytopes.identify":
        assert actual == expected
    else:
        np.testing.assert_allclose(numbers(actual), numbers(expected), rtol=1e-5, atol=1e-6)


@every_measure
@pytest.mark.parametrize("how_many", ["one", "all"])
def test_nothing_is_known_of_what_is_missing(name, how_many):
    _, arrays, _ = TAKING_ARRAYS[name]
    for position in range(len(arrays)):
        given = [array.astype(np.float32) for array in arrays]
        given[position][... if how_many == "all" else (0,) * given[position].ndim] = np.nan
        if name in CANNOT_SAY_NAN:
            with pytest.raises(InputError, match=r"diverged .* or a sweep over shapes padded it"):
                measured(name, given)
            continue
        if name == "linearity.scaling" and position == 1:
            with pytest.raises(InputError, match="range of scales is nan"):
                measured(name, given)
            continue
        result = measured(name, given)
        for leaf in jax.tree.leaves(result):
            assert leaf.dtype == jnp.float32
            # One number answers for all; several may answer for their own.
            missing = np.isnan(leaf)
            if (name, position) != ("neurons.rescaled", 1):  # the first part is of the first
                assert missing.all() if leaf.ndim == 0 or how_many == "all" else missing.any()


@pytest.mark.parametrize("name", sorted(CANNOT_SAY_NAN - {"polytopes.identify"}))
def test_a_traced_mask_of_what_is_missing_is_empty(name):
    _, arrays, _ = TAKING_ARRAYS[name]
    missing = [np.full(array.shape, np.nan, np.float32) for array in arrays]
    leaves = jax.tree.leaves(jax.jit(lambda given: measured(name, given))(missing))
    expected = {"dictionaries.match": {-1}, "motifs.asymmetric": {0, -1}}.get(name, {0})
    masks = [leaf for leaf in leaves if not jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(numbers(masks)) == expected
    assert all(jnp.isnan(leaf).all() for leaf in leaves if leaf.dtype == jnp.float32)


@every_measure
def test_one_model_at_a_time_and_real(name):
    _, arrays, _ = TAKING_ARRAYS[name]
    with pytest.raises(InputError, match=r"tm\.apply"):
        measured(name, [np.stack([array, array]).astype(np.float32) for array in arrays])
    with pytest.raises(InputError, match="complex"):
        measured(name, [array.astype(np.complex64) for array in arrays])


@pytest.mark.parametrize("labels", [np.array([1, -1, -1, 1, 1, -1]), SCORES, SCORES / 7])
def test_numbers_are_no_labels(labels):
    for name in TAKING_ARRAYS:
        measure, arrays, others = TAKING_ARRAYS[name]
        if "labels" in others:
            with pytest.raises(InputError, match="give truth values, such as labels > 0"):
                inspect.unwrap(measure)(*arrays, **{**others, "labels": labels})
    with pytest.raises(InputError, match="give truth values"):
        inspect.unwrap(activity.firing)(LATENTS, FEATURES, MATCHING)


@every_measure
def test_half_precision_is_widened(name):
    _, arrays, _ = TAKING_ARRAYS[name]
    expected = measured(name, [array.astype(np.float32) for array in arrays])
    for dtype in (jnp.float16, jnp.bfloat16):  # which hold these whole numbers exactly
        actual = measured(name, [jnp.asarray(array, dtype) for array in arrays])
        if name == "polytopes.identify":
            assert actual == expected
        else:
            np.testing.assert_array_equal(numbers(actual), numbers(expected))


def test_a_list_is_an_array():
    np.testing.assert_array_equal(inspect.unwrap(geometry.feature_norms)([[3, 0], [4, 0]]), [5, 0])


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_of_nothing_there_is_nothing(shape):
    nothing = jnp.zeros(shape)
    assert geometry.num_represented(nothing) == 0
    assert geometry.feature_dimensionality(nothing).sum() == 0
    assert neurons.code(nothing) == (0, 0, shape[0])
    assert polytopes.identify(nothing).components == ()
    assert superposition.participation_ratio(nothing) == 0


def test_a_labelled_array_of_one_model_is_an_array():
    labelled = xr.DataArray(WEIGHTS.astype(np.float32), dims=("hidden", "feature"))
    actual = inspect.unwrap(geometry.feature_norms)(labelled)
    np.testing.assert_allclose(actual, np.linalg.norm(WEIGHTS, axis=0), rtol=1e-6)


def test_host_baselines_say_why_they_cannot():
    for fit in (baselines.independent_components, baselines.nonnegative_factors):
        with pytest.raises(InputError, match="diverged"):
            fit(ANY_KEY, jnp.full((6, 3), jnp.nan), 2)
    with pytest.raises(InputError, match="vary along 0 directions, not along 2"):
        baselines.independent_components(ANY_KEY, jnp.full((6, 3), 0.1), 2)
    with pytest.raises(InputError, match="all activations are 0"):
        baselines.nonnegative_factors(ANY_KEY, jnp.zeros((6, 3)), 2)
