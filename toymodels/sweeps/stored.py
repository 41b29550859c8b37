"""The cells of one compiled program in a store: read before the sweep, kept as they finish."""

import warnings

import numpy as np
from jaxtyping import Int

from toymodels.errors import InputError
from toymodels.sweeps.datasets import Outputs
from toymodels.sweeps.program import Numbers, Program
from toymodels.sweeps.store.rows import Identity
from toymodels.sweeps.store.store import Store


class StoredCells:
    """The cells of a sweep as rows of a store.

    The store finds a cell by its program, its seed and its numbers. It keeps the outputs of a
    cell as one record: a packed structure with one field for each output.
    """

    def __init__(
        self,
        store: Store,
        program: Program,
        title: str,
        seeds: Int[np.ndarray, " cells"],
        numbers: Numbers,
    ):
        """Describe the program and the cells to the store.

        Raises:
            InputError: the program calls back to Python, so that nothing says what its outputs
                depend on.
        """
        if program.provenance is None:
            raise InputError(
                "the cell calls back to Python (jax.debug.print?), so that its outputs could "
                "depend on anything: take that out, or sweep without store="
            )
        self._store = store
        self._record = np.dtype([(n, out.dtype, out.shape) for n, out in program.outputs.items()])
        self._identity = Identity.of(
            program.provenance, title=title, axes=[*numbers], record=self._record
        )
        self._seeds = seeds
        columns = [*numbers.values()]
        self._numbers = np.stack(columns, -1) if columns else np.zeros((len(seeds), 0))

    def warn_of_changes(self, *, stacklevel: int) -> None:
        """Warn if the store has cells of the same title and none of this program."""
        difference = self._store.difference(self._identity)
        if difference is None:
            return
        changes = "; ".join(
            f"{name} was {before}, is {now}" for name, (before, now) in difference.changed.items()
        )
        warnings.warn(
            f"{self._store.path} holds {difference.cells} cells of {self._identity.title!r} that "
            f"are kept and not used, because something changed: {changes}",
            stacklevel=stacklevel + 1,
        )

    def load_into(self, outputs: Outputs) -> None:
        """Fill in the outputs of all cells that the store has."""
        found, records = self._store.read(self._identity, self._seeds, self._numbers)
        (cells,) = np.nonzero(found)
        outputs.fill(cells, {name: records[name][cells] for name in outputs.arrays})

    def save(self, cells: Int[np.ndarray, " finished"], outputs: Outputs) -> None:
        """Keep the outputs of these cells."""
        records = np.zeros(len(cells), self._record)
        for name, array in outputs.arrays.items():
            records[name] = array[cells]
        self._store.write(self._identity, self._seeds[cells], self._numbers[cells], records)
