"""A store gives back the bits it was given, and knows which program they belong to."""

import itertools
import time

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from store_cells import AXES, PARTS, PROGRAM, RECORD, assert_right, cells, child, filled, program

from toymodels.errors import InputError
from toymodels.sweeps.store.store import Difference, Store, Verification


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return one open store and, for each use, a number never used before."""
    with Store(tmp_path_factory.mktemp("shared") / "store.db") as store:
        yield store, itertools.count()


layouts = st.builds(
    lambda fields, order, align: np.dtype(fields, align=align).newbyteorder(order),
    st.lists(
        st.tuples(
            st.text("abc", min_size=1, max_size=3),
            st.sampled_from(["float32", "float64", "int32", "uint8", "bool"]),
            hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda field: field[0],
    ),
    st.sampled_from("<>"),
    st.booleans(),
)


@settings(max_examples=150)
@given(st.data())
def test_bits_come_back(shared, data):
    store, unused = shared
    layout = data.draw(layouts)
    seeds = np.array(data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True)), np.int64)
    axes = data.draw(st.sampled_from([(), ("a",), ("a", "b")]))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    numbers = data.draw(hnp.arrays(np.float64, (len(seeds), len(axes)), elements=finite))
    records = data.draw(hnp.arrays(layout, len(seeds)))  # with NaN, of any sign and payload
    this = program({"number": str(next(unused))}, axes=axes, record=layout)
    absent, _ = store.read(this, seeds, numbers)
    store.write(this, seeds, numbers, records)
    present, read = store.read(this, seeds, np.where(numbers == 0, -numbers, numbers))
    assert not absent.any()
    assert present.all()
    assert read.dtype == this.record
    for name in layout.names:
        assert read[name].tobytes() == records[name].astype(read[name].dtype).tobytes()


def test_a_store_survives_being_closed(path):
    seeds, numbers, records = filled(path)
    with Store(path) as store:
        found, read = store.read(PROGRAM, seeds, numbers)
        assert found.all()
        assert_right(found, read, records)
        assert store.verify() == Verification(200, 0, ())
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


def test_only_what_was_written_is_found_in_any_order(path):
    seeds, numbers, records = cells(100)
    with Store(path) as store:
        store.write(PROGRAM, seeds[::2], numbers[::2], records[::2])
        found, read = store.read(PROGRAM, seeds[::-1], numbers[::-1])
        np.testing.assert_array_equal(found, np.arange(100)[::-1] % 2 == 0)
        assert_right(found, read, records[::-1])
        assert not read[~found].view(np.uint8).any()
        assert not store.read(PROGRAM, seeds + 1, numbers)[0].any()
        assert not store.read(PROGRAM, seeds, numbers[:, ::-1])[0].any()
        assert not store.read(PROGRAM, seeds, np.nextafter(numbers, 2))[0].any()


def test_the_first_to_write_a_cell_stays(path):
    seeds, numbers, records = cells(10)
    with Store(path) as store:
        store.write(PROGRAM, seeds, numbers, records)
        store.write(PROGRAM, seeds, numbers, records[::-1])
        assert_right(*store.read(PROGRAM, seeds, numbers), records)


CHANGED = {
    **{name: program({**PARTS, name: "other"}) for name in PARTS},
    "one less": program({name: text for name, text in PARTS.items() if name != "platform"}),
    "one more": program({**PARTS, "flags": ""}),
    "text moved": program({**PARTS, "width": "8 cpu", "platform": ""}),
    "names swapped": program({**PARTS, "width": PARTS["platform"], "platform": PARTS["width"]}),
    "order of axes": program(axes=AXES[::-1]),
    "name of an axis": program(axes=("density", "learning_rate")),
    "type": program(record=np.dtype([("loss", "i4"), ("weights", "f4", (2, 5))])),
    "shape": program(record=np.dtype([("loss", "f4"), ("weights", "f4", (5, 2))])),
    "name of an output": program(record=np.dtype([("lose", "f4"), ("weights", "f4", (2, 5))])),
    "order of outputs": program(record=np.dtype([("weights", "f4", (2, 5)), ("loss", "f4")])),
}


@pytest.mark.parametrize("change", CHANGED)
def test_another_program_has_other_cells(path, change):
    seeds, numbers, records = cells(10)
    other = CHANGED[change]
    with Store(path) as store:
        store.write(program(), seeds, numbers, records)
        assert not store.read(other, seeds, numbers)[0].any()
        store.write(other, seeds, numbers, np.zeros(10, other.record))
        assert_right(*store.read(program(), seeds, numbers), records)
        assert [held.cells for held in store.programs()] == [10, 10]


def test_title_order_of_parts_and_byte_order_do_not_matter(path):
    seeds, numbers, records = cells(10)
    same = program(dict(reversed(PARTS.items())), title="renamed", record=RECORD.newbyteorder(">"))
    with Store(path) as store:
        store.write(program(), seeds, numbers, records)
        found, read = store.read(same, seeds, numbers)
        assert found.all()
        assert_right(found, read, records)


def test_records_of_another_type_are_refused(path):
    seeds, numbers, records = cells(10)
    wide = records.astype([("loss", "f8"), ("weights", "f4", (2, 5))])
    with Store(path) as store:
        with pytest.raises(ValueError, match="f8"):
            store.write(PROGRAM, seeds, numbers, wide)
        with pytest.raises(ValueError, match="3 numbers: give 2"):
            store.read(PROGRAM, seeds, np.zeros((10, 3)))


@pytest.mark.parametrize("type_", [object, "U3", ml_dtypes.bfloat16])
def test_what_numpy_cannot_name_is_refused(type_):
    with pytest.raises(InputError, match=r"output 'y'.*float32"):
        program(record=np.dtype([("y", type_)]))


def test_differences_name_what_changed(path):
    block_8, block_16 = {**PARTS, "width": "8"}, {**PARTS, "width": "16"}
    newer = {**block_16, "versions": "jax=0.10.2", "flags": "--fast"}
    with Store(path) as store:
        assert store.difference(program()) is None
        store.write(program(block_8), *cells(20))
        store.write(program(PARTS, title="another"), *cells(30, seed=1))
        assert store.difference(program(block_8)) is None
        assert store.difference(program(block_16)) == Difference(50, {"width": ("8", "16")})
        assert store.difference(program(block_16, title="unknown")) is None
        assert store.difference(program(newer)) == Difference(
            50,
            {
                "width": ("8", "16"),
                "versions": ("jax=0.10.1", "jax=0.10.2"),
                "flags": (None, "--fast"),
            },
        )
        store.write(program(block_16), *cells(5))  # now the nearer one
        assert store.difference(program(newer)) == Difference(
            5, {"versions": ("jax=0.10.1", "jax=0.10.2"), "flags": (None, "--fast")}
        )
        store.write(program({**PARTS, "width": "32"}), *cells(6))
        newest = store.difference(program({**PARTS, "width": "64"}))
        assert newest == Difference(6, {"width": ("32", "64")})
        others = store.difference(program(block_16, axes=("a", "b"), record=RECORD[["loss"]]))
        assert others is not None
        assert others.cells == 5
        assert others.changed["axes"] == ("density, rate", "a, b")
        assert others.changed.keys() == {"axes", "layout"}


def test_a_clock_that_runs_backwards_changes_nothing(path, monkeypatch):
    with Store(path) as store:
        for hour, width in enumerate("1234"):
            monkeypatch.setattr(time, "time", lambda hour=hour: 1e9 - 3600 * hour)
            store.write(program({"width": width}), *cells(10))
        assert [held.identity.parts["width"] for held in store.programs()] == list("1234")
        created = [held.created for held in store.programs()]
        assert created == sorted(created, reverse=True)
        nearest = store.difference(program({"width": "5"}))
        assert nearest == Difference(10, {"width": ("4", "5")})


def test_programs_tell_all_that_was_given(path):
    with Store(path) as store:
        store.write(program(), *cells(10))
        (held,) = store.programs()
    assert held.identity == program()
    assert (held.cells, held.damaged) == (10, 0)


def test_a_child_needs_no_jax():
    assert child("print('jax' in sys.modules)").communicate()[0] == "False\n"
