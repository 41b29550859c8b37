"""Settings that hold for all tests: shapes are spelled out, wide numbers only where asked for.

Compiled programs are kept beside pytest's own cache: the processes of one run share them.
Fixtures import toymodels when they are used, because types are checked only in modules that are
imported after this file.
"""

import gc
import importlib.util
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from haste import COMPILED_IN_HASTE
from hypothesis import settings

_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))  # for processes that tests start
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.0")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_numpy_rank_promotion", "raise")
# The first example of a shape compiles, which takes longer than Hypothesis allows. The name of a
# test decides its examples, so that a failure comes back.
settings.register_profile("toymodels", deadline=None, derandomize=True)
settings.load_profile("toymodels")
# Tracing makes millions of objects, and a fifth of the time went into looking for garbage.
gc.set_threshold(100_000, 20, 20)


def pytest_addoption(parser):
    """Add the option that `make test` gives for the tests that compare no last bit."""
    parser.addoption(
        "--compile-quickly",
        action="store_true",
        help="let XLA optimise nothing, and run only tests that do not care: compiling takes most "
        "of the time of the tests",
    )


def pytest_configure(config):
    """Tell XLA how to compile, before it compiles anything."""
    _check_that_this_checkout_is_tested()
    config.addinivalue_line(
        "markers",
        "as_users_compile: compares last bits, programs or speed, as XLA makes them, or computes "
        "for so long that optimised programs, or no checks of types, save much time",
    )
    if config.getoption("--compile-quickly"):
        quickly = [f"--{name}={value}".lower() for name, value in COMPILED_IN_HASTE.items()]
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *quickly]).strip()


def _check_that_this_checkout_is_tested():
    """Refuse to test the package of another checkout, which an environment may have installed.

    A package without a checkout around it may be tested, as `make test-matrix` does with a wheel.
    Tests that were copied without the package, as beside a user's own experiment, test any package.
    """
    ours = Path(__file__).parent.parent
    found = importlib.util.find_spec("toymodels")  # does not import it
    if found is None or found.origin is None:
        raise pytest.UsageError(f"no package toymodels is installed: set PYTHONPATH={ours}")
    other = Path(found.origin).parent.parent
    checkouts = (ours / "pyproject.toml").exists() and (other / "pyproject.toml").exists()
    if checkouts and other.resolve() != ours.resolve():
        raise pytest.UsageError(
            f"the tests in {ours} would test the package of another checkout, {other}: set "
            f"PYTHONPATH={ours}"
        )


def pytest_collection_modifyitems(config, items):
    """Leave out the tests that need XLA's usual options if `--compile-quickly` is given."""
    if config.getoption("--compile-quickly"):
        items[:] = [item for item in items if not item.get_closest_marker("as_users_compile")]


@pytest.fixture(autouse=True, scope="module")
def _few_memory_maps():
    """Forget compiled programs after a file of tests, before they are too many for one process."""
    yield
    from toymodels.engine import memory_maps

    if memory_maps.in_use() > 20_000:
        jax.clear_caches()


@pytest.fixture
def x64():
    """Numbers of 64 bits, until the test ends."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Each of the two types of numbers, with 64 bits allowed for the wide one."""
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


@pytest.fixture
def ran():
    """The seed and the numbers of each cell that a block ran, once for each block that ran it."""
    from helpers import around_blocks

    cells = []

    def recorded(run, number, seeds, numbers):
        columns = [numbers[name].tolist() for name in sorted(numbers)]
        cells.extend(dict.fromkeys(zip(seeds.tolist(), *columns, strict=True)))
        return run(seeds, numbers)

    with around_blocks(recorded):
        yield cells


@pytest.fixture
def slow():
    """Let every block take its time."""
    from helpers import around_blocks, slowly

    with around_blocks(slowly):
        yield


@pytest.fixture
def path(tmp_path):
    """The path of a store that does not exist yet."""
    return tmp_path / "store.db"


@pytest.fixture(scope="module")
def undisturbed():
    """The results of the sweep of `faults`, which nothing stopped."""
    import faults

    return faults.sweep()
