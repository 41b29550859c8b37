"""The loss curve and the snapshots of a run, and the steps at which they are taken."""

import itertools

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import (
    CURVATURE,
    MINIMUM,
    START,
    bowl_run,
    normal_run,
)

from toymodels import log_spaced
from toymodels.errors import InputError


@pytest.fixture(scope="module")
def fitted():
    return normal_run()


@pytest.mark.as_users_compile  # it compares last bits
@pytest.mark.parametrize("points", [1, 7, 100])
def test_the_loss_curve_is_thinned_evenly(points, fitted):
    history = normal_run(points=points).history
    steps = np.asarray(history.step)
    assert len(steps) == min(points, 20)
    assert steps[-1] == 19
    gaps = np.diff(steps, prepend=-1)
    assert gaps.min() > 0
    assert gaps.max() - gaps.min() <= 1
    np.testing.assert_array_equal(history.loss, fitted.history.loss[steps])


def test_a_long_loss_curve_is_kept_whole():
    # The product of step and number of points exceeds 32 bits.
    steps = 50_000
    fitted = bowl_run(optimizer=optax.sgd(1e-5), batch=1, steps=steps, points=steps)
    np.testing.assert_array_equal(fitted.history.step, np.arange(steps))
    path = MINIMUM + (1 - 1e-5 * CURVATURE) ** np.arange(steps)[:, None] * (START - MINIMUM)
    losses = (CURVATURE / 2 * (path - MINIMUM) ** 2).sum(axis=1)
    # Up to a rounding of the parameters per step.
    np.testing.assert_allclose(fitted.history.loss, losses, rtol=0.01)


@pytest.mark.as_users_compile  # it compares last bits
def test_snapshots_are_what_shorter_runs_end_with(fitted):
    watched = normal_run(snapshots=(0, 1, 13, 20))
    start, one, several, end = watched.snapshots
    np.testing.assert_array_equal(start, START)
    # The same operations, which another program may round otherwise.
    np.testing.assert_allclose(one, normal_run(steps=1).params, rtol=1e-6)
    np.testing.assert_allclose(several, normal_run(steps=13).params, rtol=1e-6)
    np.testing.assert_array_equal(end, watched.params)
    assert fitted.snapshots is None
    np.testing.assert_allclose(watched.params, fitted.params, rtol=1e-6)
    np.testing.assert_allclose(watched.history.loss, fitted.history.loss, rtol=1e-6)


@given(st.integers(1, 10**6), st.integers(2, 60))
def test_log_spaced_steps_are_a_constant_factor_apart(steps, number):
    spaced = log_spaced(steps, number)
    assert len(spaced) <= number
    assert spaced[0] == 0
    assert spaced[-1] == steps
    assert all(early < late for early, late in itertools.pairwise(spaced))
    if number > 2:
        assert spaced[1] == 1
        factor = steps ** (1 / (number - 2))
        for early, late in itertools.pairwise(spaced[1:]):
            # Each is rounded to a whole number, and those that coincide are one.
            assert late - 0.5 <= factor * (early + 0.5) * (1 + 1e-9)


@pytest.mark.parametrize(("steps", "number"), [(0, 5), (10, 1)])
def test_log_spaced_steps_that_make_no_sense_are_refused(steps, number):
    with pytest.raises(InputError, match=r"^(steps|number) is \d: give a whole number"):
        log_spaced(steps, number)
