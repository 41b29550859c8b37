"""The cache of compiled programs is on by default, unless JAX was told otherwise."""

import os
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

from toymodels.engine import compiling

pytestmark = pytest.mark.as_users_compile

PROGRAM = textwrap.dedent(
    """
    import jax, jax.numpy as jnp
    jnp.zeros(2) + 1  # a program compiled before ours
    import toymodels as tm
    function = tm.jit(lambda x: jnp.sum(jnp.sin(x) ** 2))
    assert jax.config.jax_compilation_cache_max_size == -1  # defining a function changes nothing
    print(function(jnp.arange(9.0)))
    print(jax.config.jax_compilation_cache_dir, jax.config.jax_compilation_cache_max_size)
    """
)


def run(home, **variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = {**kept, "XDG_CACHE_HOME": str(home), "HOME": str(home), **variables}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    value, folder = finished.stdout.splitlines()
    return value, folder.split(), finished.stderr


def programs(folder):
    return sorted(path.name for path in folder.rglob("*-cache"))


@pytest.mark.skipif(sys.platform != "linux", reason="the cache folder of Linux")
def test_the_cache_is_on_by_default_bounded_and_used_again(tmp_path):
    value, (folder, bound), _ = run(tmp_path)
    assert folder.startswith(str(tmp_path / "toymodels"))
    assert int(bound) == compiling.CACHE_BYTES
    kept = programs(tmp_path)
    assert any("lambda" in name for name in kept)
    again, _, messages = run(tmp_path)
    assert again == value
    assert programs(tmp_path) == kept
    assert not messages


def test_off_or_elsewhere_if_jax_was_told_so(tmp_path):
    run(tmp_path, JAX_ENABLE_COMPILATION_CACHE="0")
    assert not programs(tmp_path)
    other = tmp_path / "other"
    _, (folder, _), _ = run(tmp_path / "home", JAX_COMPILATION_CACHE_DIR=str(other))
    assert folder == str(other)
    assert not programs(tmp_path / "home")


def test_jit_is_the_function():
    numbers = jnp.linspace(-1, 1, 33)
    np.testing.assert_allclose(compiling.jit(jnp.cosh)(numbers), np.cosh(numbers), rtol=1e-6)
