"""Work without a look for garbage: what stays is old afterwards, and what is garbage is found."""

import gc
import weakref

import pytest

from toymodels.engine.garbage import no_garbage_collection


class Cycle:
    """An object that refers to itself, so that only a look for garbage finds it."""

    def __init__(self):
        self.own = self


@pytest.fixture(autouse=True)
def nothing_else_looks():
    """No look for garbage but those that a test asks for."""
    gc.collect()
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


def test_new_objects_count_as_old_and_stay_collectable():
    gc.enable()
    with no_garbage_collection():
        assert not gc.isenabled()
        kept, lost = Cycle(), weakref.ref(Cycle())
    assert gc.isenabled()
    gc.disable()
    assert any(each is kept for each in gc.get_objects(generation=2))
    gc.collect(1)
    assert lost() is not None
    gc.collect()
    assert lost() is None


def test_frozen_objects_stay_frozen():
    gc.freeze()
    frozen = gc.get_freeze_count()
    gc.enable()
    with no_garbage_collection():
        pass
    assert 0 < gc.get_freeze_count() <= frozen


def test_collection_that_was_off_stays_off():
    with no_garbage_collection():
        pass
    assert not gc.isenabled()
