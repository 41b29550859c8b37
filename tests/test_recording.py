"""A recording of every site of a batch holds the numbers of each example alone, with names."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toymodels as tm
from toymodels import interventions as iv

LENGTH, FEATURES, HIDDEN, LATENTS = 3, 5, 2, 4


class Attention(nn.Module):
    """A model of a sequence, with a site of heads, a submodule, and a site of two arrays."""

    @nn.compact
    def __call__(self, sequence):
        scale = self.param("scale", nn.initializers.ones, ())
        heads = jnp.stack([sequence, 2 * sequence])
        pattern = jax.nn.softmax(scale * heads @ jnp.swapaxes(heads, 1, 2))
        mixed = tm.Site(name="heads")(pattern @ heads).sum(axis=0)
        out = nn.Dense(FEATURES, name="dense")(mixed)
        first, last = tm.Site(name="ends")({"first": out[0], "last": out[-1]}).values()
        return tm.ReLUOutput(HIDDEN, name="inner")(first + last)


MODELS = {
    "ReLUOutput": tm.ReLUOutput(HIDDEN),
    "LinearOutput": tm.LinearOutput(HIDDEN),
    "ReLUHidden": tm.ReLUHidden(HIDDEN),
    "Tied": tm.Tied(HIDDEN),
    "TwoLayer": tm.TwoLayer(HIDDEN, outputs=1),
    "ReLUAutoencoder": tm.ReLUAutoencoder(LATENTS),
    "TopKAutoencoder": tm.TopKAutoencoder(LATENTS, 2),
    "BatchTopKAutoencoder": tm.BatchTopKAutoencoder(LATENTS, 2),
    "JumpReLUAutoencoder": tm.JumpReLUAutoencoder(LATENTS, bandwidth=0.1, start=0.05),
    "GatedAutoencoder": tm.GatedAutoencoder(LATENTS),
    "MatryoshkaAutoencoder": tm.MatryoshkaAutoencoder(LATENTS, (2, LATENTS)),
    "Crosscoder": tm.Crosscoder(LATENTS, (2, FEATURES - 2)),
    "SkipTranscoder": tm.SkipTranscoder(LATENTS),
    "AttentionOnly": tm.AttentionOnly(layers=1, heads=2, width=4, head_width=2),
    "a sequence": Attention(),
}


def batch(name, number=4, seed=0):
    sequences = name in ("a sequence", "AttentionOnly")
    shape = (LENGTH, FEATURES) if sequences else (FEATURES,)
    return jax.random.uniform(jax.random.key(seed), (number, *shape))


def started(name):
    return MODELS[name].init(jax.random.key(1), batch(name)[0])["params"]


def test_every_model_of_the_package_is_tested_here():
    models = {
        name
        for name in tm.__all__
        if inspect.isclass(getattr(tm, name)) and issubclass(getattr(tm, name), nn.Module)
    }
    assert models - {"Site"} <= MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_a_recording_is_what_each_example_alone_gives(name):
    model, params, examples = MODELS[name], started(name), batch(name)
    recorded = tm.record(model, params, examples)
    for number, example in enumerate(examples):
        alone = tm.activations(model, params, example)
        found = recorded.sel(example=number)
        flat = {
            f"{site}.{key}" if key else site: value
            for site, held in alone.items()
            for key, value in (held.items() if isinstance(held, dict) else [("", held)])
        }
        assert {site.replace("/", ".") for site in flat} == set(found.data_vars)
        for site, value in flat.items():
            np.testing.assert_allclose(found[site.replace("/", ".")], value, rtol=1e-5, atol=1e-6)


def test_axes_have_the_names_that_are_given_and_a_file_keeps_them(tmp_path):
    import xarray as xr

    names = {"heads": ("head", "position", "feature"), "inner.hidden": ("unit",)}
    recorded = tm.record(
        MODELS["a sequence"], started("a sequence"), batch("a sequence"), dims=names
    )
    sizes = {"example": 4, "head": 2, "position": LENGTH, "feature": FEATURES}
    assert dict(recorded["heads"].sizes) == sizes
    assert recorded["inner.hidden"].dims == ("example", "unit")
    assert recorded["ends.last"].dims == ("example", "ends.last_0")
    recorded.to_netcdf(tmp_path / "recorded.nc", engine="h5netcdf")
    again = xr.load_dataset(tmp_path / "recorded.nc", engine="h5netcdf")
    xr.testing.assert_identical(recorded, again)


def test_edits_are_seen_in_the_recording():
    model, params, examples = MODELS["ReLUOutput"], started("ReLUOutput"), batch("ReLUOutput")
    recorded = tm.record(model, params, examples, iv.zero(iv.whole("hidden")))
    np.testing.assert_array_equal(recorded["hidden"], 0)
    expected = np.broadcast_to(np.maximum(0, params["bias"]), (4, FEATURES))
    np.testing.assert_array_equal(recorded["output"], expected)


def test_an_error_inside_a_model_leaves_nothing_behind():
    """No hook is left: what is read after an error has the bits of what was read before."""
    model, params, examples = MODELS["ReLUOutput"], started("ReLUOutput"), batch("ReLUOutput")
    before = tm.record(model, params, examples)

    def fail(value):
        raise RuntimeError("a patch that fails")

    with pytest.raises(RuntimeError, match="a patch that fails"):
        tm.record(model, params, examples, iv.Edit("hidden", fail))
    with pytest.raises(RuntimeError, match="a patch that fails"):
        iv.run(model, params, examples[0], iv.Edit("hidden", fail))
    assert tm.record(model, params, examples).identical(before)


class Plain(nn.Module):
    """A model without sites."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": batch("ReLUOutput")[0]}, "which is ONE example"),
        ({"examples": batch("ReLUOutput")[:0]}, "one example or more"),
        ({"examples": (batch("ReLUOutput"), jnp.ones(3))}, r"shapes \(4, 5\), \(3,\)"),
        ({"examples": jnp.ones((4, 7))}, "has shape"),
        ({"model": Plain()}, "Plain has no site to record"),
        ({"dims": {"hiden": ("unit",)}}, "dims names 'hiden', but what is recorded is hidden"),
        ({"dims": {"hidden": ("a", "b")}}, "one name for each axis"),
        ({"dims": {"hidden": "unit"}}, "one name for each axis"),
        ({"dims": {"hidden": ["unit"], "output": ["unit"]}}, "'unit', which is that of another"),
        ({"dims": {"hidden": ["example"]}}, "'example', which is that of another axis"),
        ({"dims": {"hidden": ["hidden"]}}, "'hidden', which is that of what is recorded"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(change, message):
    model, params = MODELS["ReLUOutput"], started("ReLUOutput")
    if "model" in change:
        model = change["model"]
        params = model.init(jax.random.key(0), jnp.ones(FEATURES))["params"]
    examples = change.get("examples", batch("ReLUOutput"))
    with pytest.raises(tm.InputError, match=message):
        tm.record(model, params, examples, dims=change.get("dims"))
