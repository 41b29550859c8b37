"""Settings that hold for all tests: shapes are spelled out, wide numbers only where asked for."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Numbers of 64 bits, until the test ends."""
    with jax.enable_x64(True):
        yield
