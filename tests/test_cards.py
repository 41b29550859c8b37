"""Programs for cards that are only described: what their text says, and what bounds them."""

import importlib.util

import jax
import numpy as np
import pytest

import toymodels as tm
from toymodels import cli
from toymodels.engine.cards import card, compiling, hlo, machine_code, report
from toymodels.errors import InputError
from toymodels.experiment.costs import table
from toymodels.sweeps import watching
from toymodels.sweeps.costs import ProgramCosts, costs_on

# A loop of 7 turns that adds a row of a table to a sum, keeps a row of a curve, and multiplies by
# a library; and a loop of unknown length around a branch.
HLO = """
HloModule small

%pick (p.0: f32[100,8], p.1: s32[]) -> f32[8] {
  %p.0 = f32[100,8]{1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %row = f32[1,8]{1,0} dynamic-slice(%p.0, %p.1, %p.1), dynamic_slice_sizes={1,8}
  ROOT %flat = f32[8]{0} bitcast(%row)
}

%keep (p.2: f32[50,8], p.3: f32[1,8], p.4: s32[]) -> f32[50,8] {
  %p.2 = f32[50,8]{1,0} parameter(0)
  %p.3 = f32[1,8]{1,0} parameter(1)
  %p.4 = s32[] parameter(2)
  ROOT %kept = f32[50,8]{1,0} dynamic-update-slice(%p.2, %p.3, %p.4, %p.4)
}

%body (t: (s32[], f32[100,8], f32[50,8])) -> (s32[], f32[100,8], f32[50,8]) {
  %t = (s32[], f32[100,8]{1,0}, /*index=2*/f32[50,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %table = f32[100,8]{1,0} get-tuple-element(%t), index=1
  %curve = f32[50,8]{1,0} get-tuple-element(%t), index=2
  %pick.1 = f32[8]{0} fusion(%table, %i), kind=kLoop, calls=%pick, {deduplicated_name="pick"}
  %gemm = (f32[1,8]{1,0}, s8[64]{0}) custom-call(%pick.1), custom_call_target="__cublas$gemm"
  %out = f32[1,8]{1,0} get-tuple-element(%gemm), index=0
  %keep.1 = f32[50,8]{1,0} fusion(%curve, %out, %i), kind=kLoop, calls=%keep
  ROOT %next = (s32[], f32[100,8]{1,0}, f32[50,8]{1,0}) tuple(%i, %table, %keep.1)
}

%endless (q: pred[]) -> pred[] {
  %q = pred[] parameter(0)
  ROOT %either = pred[] conditional(%q, %q, %q), branch_computations={%yes, %no}
}

ENTRY %main (a: (s32[], f32[100,8], f32[50,8]), q0: pred[]) -> pred[] {
  %a = (s32[], f32[100,8]{1,0}, f32[50,8]{1,0}) parameter(0)
  %q0 = pred[] parameter(1)
  %w.1 = (s32[], f32[100,8], f32[50,8]) while(%a), body=%body, {"known_trip_count":{"n":"7"}}
  %copy.1 = pred[] copy(%q0)
  ROOT %w.2 = pred[] while(%copy.1), body=%endless
}
"""

# A loop that starts one kernel in a turn, and a loop around a loop that starts one kernel twice.
LAUNCHES = """
001: kCustomKernel [source | sink] before grid: [1, 1, 1] threads: [1, 1, 1]  shared_memory: 0
002: kWhile        [prev=001 (1) | next=005 (1) ]
condition:
    003: kCustomKernel [source | sink] ask grid: [1, 1, 1] threads: [1, 1, 1]  shared_memory: 0
  body:
    004: kCustomKernel [source | sink] pick grid: [16, 2, 1] threads: [33, 1, 1]  shared_memory: 0
005: kWhile        [prev=002 (1) | sink ]
condition:
    006: kCustomKernel [source | sink] ask grid: [1, 1, 1] threads: [1, 1, 1]  shared_memory: 0
  body:
    007: kCopy [source | next=008 (1)] kCopy
    008: kWhile [prev=007 (1) | next=012 (1)]
    condition:
        009: kCustomKernel [source | sink] ask grid: [1, 1, 1] threads: [1, 1, 1]  shared_memory: 0
      body:
        010: kCustomKernel [source | next=011 (1)] keep_1 grid: [1, 1, 1] threads: [128, 2, 1]  sh
        011: kCustomKernel [prev=010 (1) | sink] keep_1 grid: [1, 1, 1] threads: [128, 2, 1]  sh
    012: kCustomKernel [prev=008 (1) | sink] after grid: [1, 1, 1] threads: [1, 1, 1]  shared
"""

SAID = """
ptxas info    : Function properties for pick
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 100 registers, used 1 barriers, 480 bytes smem
"""
LISTING = """
.text.pick:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 BRA `(.L_x_0) ;
        /*0020*/                   FADD R2, R2, R3 ;
.L_x_0:
        /*0030*/                   EXIT ;
.L_x_1:
        /*0040*/                   BRA `(.L_x_1);
        /*0050*/                   NOP;
"""

has_compiler = importlib.util.find_spec("jax_cuda12_plugin") is not None
needs_compiler = pytest.mark.skipif(
    not has_compiler or jax.config.jax_platforms != "cpu",
    reason="needs pip install 'toymodels[gpu-inspect]' and JAX_PLATFORMS=cpu",
)


def test_only_rows_that_move_count_as_traffic():
    program = hlo.read(HLO)
    known, endless = program.loops
    row, index, workspace = 8 * 4, 4, 64
    assert known.turns == 7
    assert known.kernels == [
        hlo.Kernel("pick", row + index + row, ""),
        hlo.Kernel("gemm", row + row + workspace, "__cublas$gemm"),
        hlo.Kernel("keep_1", row + index + row, ""),
    ]
    assert (endless.turns, endless.kernels, endless.branches) == (None, [], 1)
    assert [kernel.name for kernel in program.kernels] == ["copy_1"]


def test_a_kernel_counts_as_often_as_an_innermost_loop_starts_it():
    """A block of 33 threads has 2 warps of 32."""
    keep = compiling.Launch("keep_1", 8)
    assert compiling.launches(LAUNCHES) == [[compiling.Launch("pick", 32 * 2)], [keep, keep]]
    assert compiling.launches(LAUNCHES.splitlines()[1]) == [[compiling.Launch("before", 1)]]


def test_padding_behind_the_end_of_a_kernel_is_not_issued():
    assert machine_code.read(SAID, LISTING) == machine_code.Code(4, registers=100, spills=32)


@pytest.mark.parametrize(
    ("kind", "cores", "terabytes"),
    [(card.Card.H100, 132, 3.35), (card.Card.H200, 132, 4.8), (card.Card.B200, 148, 7.7)],
)
def test_cards_have_the_numbers_of_their_data_sheets(kind, cores, terabytes):
    limits = card.speed(kind)
    assert limits.cores == cores
    assert limits.bandwidth / 1e12 == pytest.approx(terabytes, rel=0.01)
    assert 1.5e9 < limits.clock < 2e9


def test_bounds_are_those_of_a_copy():
    """A kernel that reads and writes a gigabyte takes two thirds of a millisecond on an H100."""
    copy = report.Cost(5, 1, 2 * 10**9, 10**6, 16, 0, [], 0)
    most = report.bounds(copy, card.Card.H100)
    assert 1 / most.memory == pytest.approx(2 / 3352.32)
    assert 1 / most.launch == card.LAUNCH_SECONDS
    assert 1 / most.issue == pytest.approx(1e6 / (132 * 4 * 1.98e9))


def test_the_table_is_of_one_model():
    """The memory of an H100 moves 3,352 GB/s, which is 838 million times 4 kB."""
    cost = report.Cost(5, 3, 4000 * 64, 0, 16, 0, [], 1)
    made = table(ProgramCosts("cell", 64, [cost]), card.Card.H100)
    names, values = ([*column.cells] for column in made.columns)
    assert made.columns[1].header == "5 turns"
    row = dict(zip(names, values, strict=True))
    assert row["bytes of memory traffic"] == "4,000"
    assert (row["kernels for all models"], row["waits for the host"]) == ("3", "1")
    assert row["million turns/s by memory"] == "838"


def test_a_watched_sweep_runs_no_cell():
    seen = []
    with watching.instead_of_running(seen.append):
        results = tm.sweep(lambda key, a: {"b": a}, axes={"a": [1.0, 2.0]}, progress=False)
    assert np.isnan(results.b).all()
    assert seen[0].grid.numbers["a"].tolist() == [1, 2]
    assert tm.sweep(lambda key, a: {"b": a}, axes={"a": [1.0]}, progress=False).b == 1


def test_a_watched_sweep_leaves_its_folder_and_its_store_alone(tmp_path):
    """A later sweep would take the NaN of a cell that never ran for the output of a cell."""
    places = {"store": tmp_path / "store", "folder": tmp_path / "folder"}
    with watching.instead_of_running(lambda _: None):
        tm.sweep(lambda key, a: {"b": a}, axes={"a": [1.0]}, progress=False, **places)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(has_compiler, reason="the compiler for cards is installed")
def test_a_missing_compiler_is_one_line(capfd):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["cost", "first_sweep", "--device", "h100", "--smoke"])
    assert (
        "toymodels: the compiler for cards is not installed: pip install" in capfd.readouterr()[1]
    )
    with pytest.raises(
        InputError, match=r"is not installed: pip install 'toymodels\[gpu-inspect\]'"
    ):
        machine_code.of_kernels([], [])


@needs_compiler
@pytest.mark.as_users_compile
@pytest.mark.parametrize("kind", card.Card)
def test_a_cell_is_compiled_for_a_card_that_is_not_there(kind):
    """A thousand turns of x <- x / 2 + 1: one kernel for each turn, which reads and writes x."""

    def halved(key, start):
        return {"x": jax.lax.fori_loop(0, 1000, lambda _, x: x / 2 + 1, start)}

    costs = []

    def watch(request):
        costs.extend(cost for each in costs_on(request, kind) for cost in each.costs)

    with watching.instead_of_running(watch):
        tm.sweep(halved, axes={"start": [1.0, 2.0]}, width=4096, progress=False)
    (cost,) = costs
    assert (cost.turns, cost.waits, cost.libraries, cost.spills) == (1000, 0, [], 0)
    assert cost.kernels <= 2  # the other one counts the turns
    assert 2 * 4 * 4096 <= cost.traffic < 3 * 4 * 4096
    assert cost.instructions > 4096 / 32
    assert 8 <= cost.registers <= 32


@needs_compiler
@pytest.mark.as_users_compile
def test_an_update_of_a_small_model_is_a_few_kernels_that_never_wait():
    """The memory of an H100 allows 46 million updates of 72 kB in a second.

    A turn of the loop is two updates. The program of a learning rate that falls has two counters.
    """

    def trained(key, density):
        recipe = tm.Recipe(steps=18, batch=1024, learning_rate=1e-2)
        ran = recipe.train(key, tm.ReLUOutput(2), tm.Task(tm.SparseUniform(5, density)), points=1)
        return {"loss": ran.loss, **ran.params}

    costs = []

    def watch(request):
        for program in costs_on(request, card.Card.H100):
            assert program.width == 4096
            costs.extend(program.costs)

    with watching.instead_of_running(watch):
        tm.sweep(trained, axes={"density": [0.1]}, progress=False)
    (turn,) = [cost for cost in costs if cost.turns == 9]
    assert turn.kernels <= 2 * 6
    assert turn.traffic / 4096 < 2 * 84e3
    assert (turn.spills, turn.libraries) == (0, [])
    assert not any(cost.waits for cost in costs)
