"""The effect of patching every place of a run at once, held against each place alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toymodels as tm
from toymodels import interventions as iv
from toymodels.theory import frames

MODEL = tm.ReLUOutput(hidden=2)
PENTAGON = {"weights": jnp.asarray(frames.regular_polygon(5)), "bias": jnp.full(5, 0.1)}
CLEAN = jnp.asarray([0.9, 0.0, 0.4, 0.0, 0.2])
CORRUPT = jnp.asarray([0.1, 0.7, 0.0, 0.0, 0.5])


def first(output):
    return output[0]


def test_a_map_has_the_effect_of_each_place_alone():
    found = iv.label(iv.patching_map(MODEL, PENTAGON, CLEAN, CORRUPT, first))
    assert found.sizes == {"site": 3, "place": 5}
    for unit in range(2):
        alone = iv.patching(MODEL, PENTAGON, CLEAN, CORRUPT, iv.unit("hidden", unit), first)
        for name, value in alone._asdict().items():
            here = found[name].sel(site="hidden", place=unit)
            np.testing.assert_allclose(here, value, atol=1e-6)
    assert found.sufficiency.sel(site="hidden").isnull().sum() == 3  # it has two units alone


def test_the_output_that_the_metric_reads_carries_all_and_the_others_nothing():
    found = iv.label(iv.patching_map(MODEL, PENTAGON, CLEAN, CORRUPT, first))
    for site in ("preactivation", "output"):
        np.testing.assert_allclose(found.sufficiency.sel(site=site), [1, 0, 0, 0, 0], atol=1e-6)
        np.testing.assert_allclose(found.necessity.sel(site=site), [1, 0, 0, 0, 0], atol=1e-6)


def test_a_map_of_a_sequence_shows_where_the_information_is():
    class Middle(nn.Module):
        """The output is the middle position of a sequence that is turned round."""

        @nn.compact
        def __call__(self, x):
            self.param("unused", nn.initializers.zeros, ())
            turned = tm.Site(name="turned")(tm.Site(name="input")(x)[::-1])
            return turned[0].sum()

    clean, corrupt = jnp.ones((3, 4)), jnp.zeros((3, 4))
    params = {"unused": jnp.zeros(())}
    found = iv.label(iv.patching_map(Middle(), params, clean, corrupt, lambda output: output))
    np.testing.assert_array_equal(found.sufficiency.sel(site="input"), [0, 0, 1])
    np.testing.assert_array_equal(found.sufficiency.sel(site="turned"), [1, 0, 0])


def test_another_direction_restores_the_square_of_the_cosine():
    r"""Direction $j$ restores $\cos^2$ of the angle in output $i$ if only feature $i$ differs."""
    model, params = tm.LinearOutput(hidden=2), PENTAGON
    corrupt = CLEAN.at[0].set(0)
    parts = {"features": iv.directions("hidden", PENTAGON["weights"])}
    found = iv.patching_map(model, params, CLEAN, corrupt, first, parts=parts)["features"]
    cosine = np.cos(2 * np.pi * np.arange(5) / 5)
    np.testing.assert_allclose(found.sufficiency, cosine**2, atol=1e-5)


def test_maps_of_a_batch_of_pairs_are_those_of_each_pair():
    cleans, corrupts = jnp.stack([CLEAN, CORRUPT]), jnp.stack([CORRUPT, CLEAN])

    def of_pair(clean, corrupt):
        return iv.patching_map(MODEL, PENTAGON, clean, corrupt, first)

    found = iv.label(jax.jit(jax.vmap(of_pair))(cleans, corrupts), "pair")
    assert found.denoised.dims == ("pair", "site", "place")
    for pair in range(2):
        alone = iv.label(of_pair(cleans[pair], corrupts[pair]))
        np.testing.assert_allclose(found.denoised[pair], alone.denoised, atol=1e-6)


def test_maps_over_a_sweep():
    def cell(key, *, density):
        task = tm.Task(tm.SparseUniform(5, density))
        recipe = tm.Recipe(steps=5, batch=8, learning_rate=1e-2)
        params = recipe.train(key, MODEL, task, evaluation=0).params
        found = iv.patching_map(MODEL, params, CLEAN, CORRUPT, first)
        return {"denoised": found["hidden"].denoised}

    dims = {"denoised": ("unit",)}
    found = tm.sweep(cell, axes={"density": [0.5, 0.1]}, num_seeds=2, dims=dims)
    assert found.denoised.sizes == {"density": 2, "seed": 2, "unit": 2}
    assert bool(np.isfinite(found.denoised).all())


def test_an_edit_that_fails_leaves_no_trace():
    plain = MODEL.apply({"params": PENTAGON}, CLEAN)
    with pytest.raises(tm.InputError):
        iv.run(MODEL, PENTAGON, CLEAN, iv.set_to(iv.whole("hidden"), jnp.ones(3)))
    np.testing.assert_array_equal(MODEL.apply({"params": PENTAGON}, CLEAN), plain)


class NoAxis(nn.Module):
    """A model whose only site holds a number."""

    @nn.compact
    def __call__(self, x):
        self.param("unused", nn.initializers.zeros, ())
        return tm.Site(name="sum")(x.sum())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iv.places(NoAxis(), {"unused": jnp.zeros(())}, CLEAN), "no site of this model"),
        (
            lambda: iv.label(iv.patching_map(MODEL, PENTAGON, CLEAN, CORRUPT, first), "pair"),
            "0 axes before",
        ),
        (lambda: iv.label({}), "no effects"),
        (
            lambda: iv.label(iv.patching_map(MODEL, PENTAGON, CLEAN, CORRUPT, first), "site"),
            "'site' names another axis already",
        ),
        (
            lambda: iv.patching_map(
                MODEL, PENTAGON, CLEAN, CORRUPT, first, parts={"all": iv.whole("hidden")}
            ),
            r"parts\['all'\] is ONE part",
        ),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(call, message):
    with pytest.raises(tm.InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
