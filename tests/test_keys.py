"""The fusable generator is Threefry-2x32, bit for bit that of `jax.random`."""

import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from haste import in_haste
from helpers import assert_same_bits, operations

import toymodels as tm
from toymodels.engine import keys

pytestmark = pytest.mark.as_users_compile

SHAPES = [(), (1,), (7,), (3, 5), (0,), (2, 0, 3)]


def pair(seed=3):
    """Return one key twice: as a key of JAX and as our own."""
    key = jax.random.key(seed, impl="threefry2x32")
    return key, keys.fusable(key)


def data(key):
    return np.asarray(jax.random.key_data(key))


def with_both(function, jit=in_haste):
    """Return what a function gives for a key of JAX and for our own, from one program."""
    return jit(lambda *keys: [function(key) for key in keys])(*pair())


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ("00000000 00000000", "00000000 00000000", "6b200159 99ba4efe"),
        ("ffffffff ffffffff", "ffffffff ffffffff", "1cb996fc bb002be7"),
        ("13198a2e 03707344", "243f6a88 85a308d3", "c4923a9c 483df7a0"),
    ],
)
def test_known_answers_of_random123(key, counter, expected):
    """The answers are those of `kat_vectors` of Random123 for threefry2x32, 20 rounds."""
    key, counter, expected = (
        [np.uint32(int(word, 16)) for word in words.split()] for words in (key, counter, expected)
    )
    high, low = keys.threefry_2x32(jnp.array(key), *map(jnp.asarray, counter))
    np.testing.assert_array_equal([high, low], expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.uint16, jnp.uint32])
def test_random_bits_are_those_of_jax(shape, dtype):
    assert_same_bits(*with_both(lambda key: jax.random.bits(key, shape, dtype)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_wide_random_bits_are_those_of_jax(shape, x64):
    assert_same_bits(*with_both(lambda key: jax.random.bits(key, shape, jnp.uint64)))


@pytest.mark.parametrize("shape", [2, 1, 7, (2, 3), 0], ids=str)
def test_split_keys_are_those_of_jax(shape):
    stock, ours = with_both(lambda key: jax.random.split(key, shape))
    assert_same_bits(data(ours), data(stock))


@pytest.mark.parametrize("number", [0, 1, 2**31 - 1, 2**31, 2**32 - 1, np.uint32(7), np.int32(-1)])
def test_folded_keys_are_those_of_jax(number):
    stock, ours = with_both(lambda key: jax.random.fold_in(key, number))
    assert_same_bits(data(ours), data(stock))


SEEDS = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, -1, -(2**31), np.int32(-5), np.uint32(2**32 - 1)]


@pytest.mark.parametrize("seed", [*SEEDS, np.int64(5), np.uint8(5)], ids=repr)
def test_the_key_of_a_seed_is_that_of_jax(seed):
    assert_same_bits(
        data(jax.random.key(seed, impl=keys.fusable_threefry)),
        data(jax.random.key(seed, impl="threefry2x32")),
    )


@pytest.mark.parametrize("seed", [*SEEDS, 2**32, 2**63 - 1, -(2**63)], ids=repr)
def test_the_key_of_a_wide_seed_is_that_of_jax(seed, x64):
    assert_same_bits(
        data(jax.random.key(seed, impl=keys.fusable_threefry)),
        data(jax.random.key(seed, impl="threefry2x32")),
    )


# JAX refuses keys of another kind for some of these, or takes another way.
CHOOSY = {
    "poisson": lambda key: jax.random.poisson(key, 3.0, (7,)),
    "poisson of a large rate": lambda key: jax.random.poisson(key, 300.0, (2, 3)),
    "gamma": lambda key: jax.random.gamma(key, 0.5, (7,)),
    "dirichlet": lambda key: jax.random.dirichlet(key, jnp.ones(3)),
    "binomial": lambda key: jax.random.binomial(key, 9, 0.3, (5,)),
    "name of the generator": lambda key: jnp.full((), len(str(jax.random.key_impl(key)))),
    "key of its own": lambda key: jax.random.uniform(jax.random.key(5, impl="threefry2x32"), (3,)),
    "key that is carried": lambda key: jax.lax.fori_loop(
        0, 3, lambda _, k: jax.random.split(k)[1], key
    ),
    "key in a branch": lambda key: jax.lax.cond(
        jax.random.bernoulli(key), jax.random.normal, jax.random.uniform, key
    ),
    "keys at once": lambda key: jax.vmap(jax.random.normal)(jax.random.split(key, 4)),
    "keys of a scan": lambda key: jax.lax.scan(
        lambda total, k: (total + jax.random.normal(k), k), 0.0, jax.random.split(key, 4)
    ),
    "key from outside": lambda key: jax.random.normal(pair(7)[1], (3,)),
}


@pytest.mark.parametrize("draw", CHOOSY.values(), ids=CHOOSY.keys())
def test_a_fusing_function_draws_what_jax_draws(draw):
    """Our keys draw what JAX draws with its own. A key that comes out is as good as one of JAX."""
    stock, ours = pair()
    expected = in_haste(draw)(stock)
    for drawn in in_haste(lambda *both: [keys.fusing(draw)(key) for key in both])(ours, stock):
        for one, other in zip(jax.tree.leaves(drawn), jax.tree.leaves(expected), strict=True):
            if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
                one, other = data(one), data(other)
            assert_same_bits(one, other)


@pytest.mark.parametrize("draw", CHOOSY.values(), ids=CHOOSY.keys())
def test_fusing_leaves_no_draw_that_xla_cannot_fuse(draw):
    program = jax.make_jaxpr(keys.fusing(draw))(pair()[1])
    drawn = [each.invars[0].aval.dtype for each in operations(program, "random_bits")]
    assert set(drawn) <= {pair()[1].dtype}


def test_a_chain_of_keys_compiles_about_as_fast_as_with_the_keys_of_jax():
    """One kernel for a split, a fold and a draw once compiled for minutes with JAX 0.12."""
    unique = time.time_ns() % 2**31  # so that no earlier run has left the program in the cache

    def draw(key):
        for link in range(3):
            key = jax.random.fold_in(jax.random.split(key)[0], unique ^ link)
        return jax.random.uniform(key, (2, 4))

    seconds = []
    for key in pair():
        lowered = jax.jit(draw).lower(key)
        start = time.process_time()
        lowered.compile()
        seconds.append(time.process_time() - start)
    stock, ours = seconds
    assert ours < 10 * stock


@struct.dataclass
class Counts:
    """Features that are numbers of events."""

    rate: float
    num_features: int = struct.field(pytree_node=False, default=3)

    def sample(self, key, batch):
        return jax.random.poisson(key, self.rate, (batch, 3)).astype(float)


def test_counts_are_trained_on_evaluated_and_swept():
    """The mean square of a Poisson number of rate r is r + r**2: the loss of a model of zeros."""
    task = tm.Task(Counts(2.0))
    model, zeros = tm.ReLUOutput(1), {"weights": jnp.zeros((1, 3)), "bias": jnp.zeros(3)}
    measured = tm.evaluate(
        jax.random.key(0),
        zeros,
        tm.task_loss(model, task),
        task.features.sample,
        batch=1000,
        examples=20_000,
    )
    np.testing.assert_allclose(measured, 3 * (2 + 2**2), rtol=0.05)  # the mean of 60,000 squares

    def cell(key, *, rate):
        counts = jax.random.poisson(key, rate, (5,))
        how = {"optimizer": optax.sgd(0.1), "steps": 1, "batch": 4, "evaluation": 100}
        trained = tm.train(key, model, tm.Task(Counts(rate)), **how)
        return {"counts": counts, "loss": trained.loss}

    results = tm.sweep(cell, axes={"rate": [2.0, 3.0]}, num_seeds=2, progress=False)
    for seed in (0, 1):
        expected = jax.random.poisson(jax.random.key(seed), 3.0, (5,))
        np.testing.assert_array_equal(results["counts"].sel(rate=3.0, seed=seed), expected)


def test_key_of_a_seed_is_that_of_threefry_whatever_the_default():
    program = """
import jax, toymodels as tm
results = tm.sweep(
    lambda key: {"u": jax.random.uniform(key)}, num_seeds=3, progress=False
)
threefry = [jax.random.uniform(jax.random.key(s, impl="threefry2x32")) for s in range(3)]
print(str(jax.random.key_impl(jax.random.key(0))))
print([float(u) for u in results.u] == [float(u) for u in threefry])
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "JAX_DEFAULT_PRNG_IMPL": "rbg"},
        capture_output=True,
        text=True,
    )
    assert finished.stdout.split() == ["rbg", "True"], finished.stderr


DISTRIBUTIONS = {
    "uniform": lambda key, shape: jax.random.uniform(key, shape, minval=-1, maxval=3),
    "uniform, half": lambda key, shape: jax.random.uniform(key, shape, jnp.bfloat16),
    "normal": jax.random.normal,
    "randint": lambda key, shape: jax.random.randint(key, shape, -5, 1000),
    "randint of 8 bits": lambda key, shape: jax.random.randint(key, shape, 0, 100, jnp.uint8),
    "bernoulli": lambda key, shape: jax.random.bernoulli(key, 0.3, shape),
    "permutation": lambda key, shape: jax.random.permutation(key, 11),
    "exponential": jax.random.exponential,
    "of keys split": lambda key, shape: jax.random.normal(jax.random.split(key)[1], shape),
    "of keys folded": lambda key, shape: jax.random.normal(jax.random.fold_in(key, 5), shape),
}


@pytest.mark.parametrize("draw", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS.keys())
def test_distributions_draw_what_jax_draws(draw):
    assert_same_bits(*with_both(lambda key: draw(key, (3, 5)), jax.jit))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_is_drawn_as_jax_draws_it(shape):
    assert_same_bits(*with_both(lambda key: jax.random.uniform(key, shape)))


@pytest.mark.parametrize("draw", [jax.random.uniform, jax.random.normal])
def test_wide_distributions_draw_what_jax_draws(draw, x64):
    assert_same_bits(*with_both(lambda key: draw(key, (3, 5), jnp.float64), jax.jit))


@pytest.mark.parametrize(
    "draw",
    [lambda key: jax.random.bits(key, (5,)), lambda key: jax.random.randint(key, (5,), 0, 9)],
)
def test_draws_do_not_change_under_jit_vmap_and_scan(draw):
    stock, ours = (jax.random.split(key, (2, 3)) for key in pair())
    expected = np.array([[draw(key) for key in row] for row in stock])
    mapped = jax.vmap(jax.vmap(draw))
    np.testing.assert_array_equal(mapped(ours), expected)
    np.testing.assert_array_equal(jax.jit(mapped)(ours), expected)
    _, scanned = jax.lax.scan(lambda carry, row: (carry, jax.vmap(draw)(row)), None, ours)
    np.testing.assert_array_equal(scanned, expected)


def test_split_and_folded_keys_do_not_change_under_vmap():
    stock, ours = (jax.random.split(key, 4) for key in pair())
    numbers = jnp.arange(4)
    for function in (
        lambda key, _: jax.random.split(key, 3),
        jax.random.fold_in,
        lambda _, number: jax.random.fold_in(ours[0], number),
    ):
        one_by_one = [data(function(key, n)) for key, n in zip(ours, numbers, strict=True)]
        np.testing.assert_array_equal(data(jax.vmap(function)(ours, numbers)), one_by_one)
    np.testing.assert_array_equal(
        data(jax.vmap(jax.random.fold_in)(ours, numbers)),
        data(jax.vmap(jax.random.fold_in)(stock, numbers)),
    )


def test_too_long_a_draw_is_refused():
    with pytest.raises(ValueError, match=f"{2**32} words"):
        jax.jit(lambda key: jax.random.bits(key, (2**16, 2**16))).lower(pair()[1])


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)], ids=str)
def test_fusable_keeps_the_words_and_the_shape(shape):
    stock = jax.random.split(jax.random.key(0, impl="threefry2x32"), shape)
    ours = keys.fusable(stock)
    assert ours.shape == shape
    np.testing.assert_array_equal(data(ours), data(stock))
    assert jax.random.key_impl(ours) != jax.random.key_impl(stock)
    assert jax.random.key_impl(jax.jit(keys.fusable)(stock)) == jax.random.key_impl(ours)


@pytest.mark.parametrize("other", ["rbg", "unsafe_rbg", keys.fusable_threefry], ids=str)
@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_fusable_leaves_other_generators(other, shape):
    key = jax.random.split(jax.random.key(0, impl=other), shape)
    assert keys.fusable(key) is key
