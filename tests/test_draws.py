"""A sampler cut in two gives the same bits, and the first half knows nothing but the key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from haste import in_haste
from helpers import assert_same_bits, operations

from toymodels import features
from toymodels.engine import draws, keys

pytestmark = pytest.mark.as_users_compile

BATCH = 7


def of_features(distribution):
    return lambda key, density: distribution(4, density).sample(key, BATCH)


def bernoulli(key, density):
    return jax.random.bernoulli(key, density, (BATCH, 4))


def scaled_normal(key, density):
    return jnp.sqrt(density) * jax.random.normal(key, (BATCH, 4))


def keys_split(key, density):
    """A sampler that returns a tree, from two keys and from numbers that need no key."""
    key_mask, key_size = jax.random.split(key)
    mask = jax.random.bernoulli(key_mask, density, (BATCH, 4))
    size = jax.random.uniform(key_size, (BATCH, 4), minval=-1)
    return {"x": jnp.where(mask, size, 0), "order": jnp.arange(BATCH)}


def keys_folded(key, density):
    """A sampler with one key for each example."""
    example_keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(BATCH))
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (4,)))(example_keys)
    return jnp.maximum(0.0, 1 - uniform / density)


def correlated(key, density):
    """A sampler of all features or none, with a captured table and words used twice."""
    table = jnp.asarray(np.tri(4, dtype=np.float32))
    uniform = jax.random.uniform(key, (BATCH, 1))
    return (jnp.where(uniform < density, uniform, 0) * jnp.ones((1, 4))) @ table


SAMPLERS = {
    "SparseUniform": of_features(features.SparseUniform),
    "SignedSparseUniform": of_features(features.SignedSparseUniform),
    "Binary": of_features(features.Binary),
    "bernoulli": bernoulli,
    "normal": scaled_normal,
    "keys split": keys_split,
    "keys folded": keys_folded,
    "correlated": correlated,
}
samplers = pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS.keys())


def split(sample, key, density):
    return draws.split(lambda key: sample(key, density), key)


@pytest.fixture
def key():
    return keys.fusable(jax.random.key(5, impl="threefry2x32"))


@samplers
@pytest.mark.parametrize("kind", [keys.fusable_threefry, "threefry2x32", "rbg"], ids=str)
def test_finish_after_draw_is_the_sample(sample, kind):

    @in_haste
    def cut_and_whole(key, other, density):
        draw, finish = split(sample, key, density)
        # Cut for one key, used for another.
        return [(finish(draw(each)), sample(each, density)) for each in (key, other)]

    one, other = (jax.random.key(seed, impl=kind) for seed in (5, 6))
    for cut, whole in cut_and_whole(one, other, jnp.float32(0.3)):
        assert_same_bits(cut, whole)


@samplers
def test_finish_after_draw_is_the_sample_under_jit(sample, key):
    """The training loop also draws in one step and finishes in the next."""

    @jax.jit
    def both(key, density):
        draw, finish = split(sample, key, density)
        _, drawn = jax.lax.scan(lambda carry, _: (draw(key), carry), draw(key), length=1)
        finished = finish(jax.tree.map(lambda leaf: leaf[0], drawn))
        return finished, sample(key, density)

    assert_same_bits(*both(key, jnp.float32(0.3)))


@samplers
def test_cells_of_one_seed_share_what_is_drawn(sample, key):
    """`vmap` itself refuses an output that differs between cells where none may."""
    densities = jnp.array([0.1, 0.5, 1.0])

    def drawn(density):
        return split(sample, key, density)[0](key)

    shared = jax.jit(jax.vmap(drawn, out_axes=None))(densities)
    assert_same_bits(shared, jax.jit(drawn)(densities[0]))

    def finished(density, drawn):
        return split(sample, key, density)[1](drawn)

    cells = jax.jit(jax.vmap(finished, (0, None)))(densities, shared)
    for index, density in enumerate(densities):
        jax.tree.map(
            # Another program, in which products may be grouped otherwise: a rounding or two.
            lambda leaf, alone, index=index: np.testing.assert_allclose(
                leaf[index], alone, rtol=1e-6
            ),
            cells,
            jax.jit(sample)(key, density),
        )


@samplers
def test_no_random_word_is_left_to_finish(sample, key):
    density = jnp.float32(0.3)
    draw, finish = split(sample, key, density)
    assert operations(jax.make_jaxpr(draw)(key), "random_bits")
    drawn = jax.eval_shape(draw, key)
    assert not operations(jax.make_jaxpr(finish)(drawn), "random_bits")


@pytest.mark.parametrize("density", [0.3, jnp.array([0.1, 0.2, 0.3, 0.4])], ids=["one", "each"])
def test_one_density_or_each_its_own(density, key):
    sample = of_features(features.SparseUniform)
    draw, finish = split(sample, key, density)
    assert_same_bits(finish(draw(key)), sample(key, density))


def test_a_loop_that_mixes_key_and_density_is_left_to_finish(key):
    """The draw then returns only keys, and the bits of the sample are unchanged."""

    def in_turn(key, density):
        def one(carry, key):
            return carry, jax.random.bernoulli(key, density, (4,))

        return jax.lax.scan(one, None, jax.random.split(key, BATCH))[1]

    draw, finish = split(in_turn, key, jnp.float32(0.3))
    assert_same_bits(finish(draw(key)), in_turn(key, jnp.float32(0.3)))
    densities = jnp.array([0.1, 0.5])
    cells = jax.vmap(lambda density: split(in_turn, key, density)[1](draw(key)))(densities)
    assert_same_bits(cells[1], in_turn(key, densities[1]))
