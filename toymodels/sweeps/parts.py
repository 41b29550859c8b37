"""Results that do not fit into memory: a folder of netCDF files, one for each part of the grid.

A part is a run of neighbouring seeds at a run of neighbouring points, small enough for memory. It
is written when its last cell has finished, and a part that is there is not run again. The file
`results.nc` is the index: it holds the labels, and its arrays are *virtual*, which means that HDF5
reads each number from the file of its part.
"""

import hashlib
import itertools
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import xarray as xr

from toymodels.engine import memory_maps
from toymodels.errors import InputError
from toymodels.sweeps import datasets
from toymodels.sweeps.layouts import Layout
from toymodels.sweeps.progress import Report
from toymodels.sweeps.requests import Request
from toymodels.sweeps.variants import Variant

PART_CELLS = 2**20
"""The maximum number of cells of a part. The numbers and keys of so many take about 100 MB."""
PART_BYTES = 2**26
"""The maximum number of bytes of the outputs of a part, which are copied a few times."""

# The attributes of the results of parts that are added up for the whole.
_SUMS = {"diverged_cells": 0, "not_finite_cells": 0, "seconds": 0.0}


class Piece(NamedTuple):
    """The results of some cells of a sweep, or of all.

    Attributes:
        results: the labelled outputs; cells that did not finish are NaN.
        remarks: warnings of cells that diverged or are not finite.
        finished: how many cells have finished.
        failure: the error that stopped the sweep, if any.
    """

    results: xr.Dataset
    remarks: Sequence[str]
    finished: int
    failure: BaseException | None


Run: TypeAlias = Callable[[Request, Report], Piece]


class Part(NamedTuple):
    """A part of the grid.

    Attributes:
        path: its file.
        request: the request for its cells.
        places: where it stands along `seed` and along each axis.
    """

    path: Path
    request: Request
    places: dict[str, slice]


class Folder:
    """The folder of one sweep, with the parts that have finished.

    Attributes:
        path: the folder.
        parts: all parts of the grid.
        finished: the files of the parts that have finished.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        request: Request,
        variants: Sequence[Variant],
        layout: Layout,
        units: Mapping[str, str],
    ):
        """Make the folder, or check that it holds this sweep.

        Raises:
            InputError: the path cannot be used, or the folder holds another sweep.
        """
        self.path = Path(path).expanduser().absolute()
        self._request, self._layout, self._units = request, layout, units
        shapes = [variant.traced.outputs for variant in variants]
        if wrong := [n for each in shapes for n, out in each.items() if out.dtype.kind == "c"]:
            raise InputError(
                f"output {wrong[0]!r} is complex, which the files of a folder cannot hold: return "
                "its real and its imaginary part"
            )
        self._types = {
            name: np.result_type(*(each[name].dtype for each in shapes), np.float32)
            for name in layout.dims
        }
        self._sizes = {
            dim: max(each[name].shape[axis] for each in shapes)
            for name, dims in layout.dims.items()
            for axis, dim in enumerate(dims)
        }
        lengths = _lengths(request, variants)
        self._sweep = _identity(request, variants, layout, lengths)
        self.parts = [*_cut(self.path, request, lengths)]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            found = {path: _sweep_of(path) for path in [self._index, *self._files()]}
        except OSError as error:
            raise InputError(
                f"cannot use {self.path}: {error.strerror or error}: give the path of a folder "
                "that is yours to write"
            ) from error
        for file, sweep in found.items():
            if sweep not in (None, self._sweep):
                raise InputError(
                    f"{file} belongs to another sweep: its cell, grid, seeds, width, versions or "
                    "processor were different: give another folder"
                )
        self.finished = {file for file in self._files() if found[file] is not None}

    @property
    def _index(self) -> Path:
        return self.path / "results.nc"

    def _files(self) -> list[Path]:
        return [part.path for part in self.parts]

    def write(self, part: Part, results: xr.Dataset) -> None:
        """Write the results of a part: the whole file or, after an error, nothing."""
        named = results.assign_attrs(sweep=self._sweep)
        _replace(part.path, lambda file: named.to_netcdf(file, engine="h5netcdf"))
        self.finished.add(part.path)

    def read(self) -> xr.Dataset:
        """Write the index, and open it. Numbers are read when they are used.

        All numbers are floats, because a part that is missing reads as NaN.
        """
        _replace(self._index, self._write_index)
        return xr.open_dataset(self._index, engine="h5netcdf")

    def _write_index(self, file: Path) -> None:
        import h5netcdf  # takes a tenth of a second to import, and few sweeps have a folder
        import h5py

        request = self._request
        seeds, grid = request.seeds.tolist(), request.grid
        labels = datasets.coordinates(seeds, grid, request.static_axes, self._layout)
        xr.Dataset(coords=labels, attrs=self._attributes()).to_netcdf(file, engine="h5netcdf")
        with h5netcdf.File(file, "a") as index:
            for dim in self._sizes.keys() - index.dimensions.keys():
                index.dimensions[dim] = self._sizes[dim]
        with h5py.File(file, "a") as opened:
            index: Any = opened
            for name, own in self._layout.dims.items():
                dims = [*request.static_axes, *grid.shape, "seed", *own]
                virtual = self._virtual(name, dims, tuple(len(index[dim]) for dim in dims))
                array = index.create_virtual_dataset(name, virtual, fillvalue=np.nan)
                for axis, dim in enumerate(dims):
                    array.dims[axis].attach_scale(index[dim])
                if own:
                    array.attrs[datasets.CELL_DIMS] = json.dumps(own)
            for name, unit in self._units.items():
                index[name].attrs["units"] = unit

    def _virtual(self, name: str, dims: Sequence[str], shape: tuple[int, ...]) -> Any:
        """Return the array of an output whose numbers are in the files of the parts."""
        import h5py

        virtual = h5py.VirtualLayout(shape, self._types[name])
        for part in self.parts:
            places = tuple(
                part.places.get(dim, slice(0, size)) for dim, size in zip(dims, shape, strict=True)
            )
            own = tuple(place.stop - place.start for place in places)
            virtual[places] = h5py.VirtualSource(part.path.name, name, own)
        return virtual

    def _attributes(self) -> dict[str, Any]:
        """Return the attributes of the finished parts, with the sums of their counts."""
        attributes: dict[str, Any] = {}
        sums = dict(_SUMS)
        for path in self.finished:
            with xr.open_dataset(path, engine="h5netcdf") as part:
                attributes = part.attrs
                sums = {name: total + attributes[name].item() for name, total in sums.items()}
        return {**attributes, **sums, "sweep": self._sweep}


def run(folder: Folder, run_part: Run, report: Report) -> Piece:
    """Run the parts that the folder does not have, one after another, and keep each in it.

    A part in which a block fails is not kept.

    Returns:
        The results of all parts, to be read from the folder.
    """
    folder.read().close()  # from now on, others can look at what has finished
    remarks: list[str] = []
    failure = None
    try:
        for number, part in enumerate(folder.parts, 1):
            if part.path in folder.finished:
                continue
            piece = run_part(part.request, _titled(report, f"part {number}/{len(folder.parts)}"))
            if (failure := piece.failure) is not None:
                break
            folder.write(part, piece.results)
            remarks += piece.remarks[: 3 - len(remarks)]  # three warnings are enough
    except (KeyboardInterrupt, OSError) as error:
        failure = error
    cells = [part.request.num_cells for part in folder.parts if part.path in folder.finished]
    return Piece(folder.read(), remarks, sum(cells), failure)


def _titled(report: Report, words: str) -> Report:
    """Return a report that names the part beside the title of a program."""

    def start(title: str, cells: int, steps: int) -> None:
        report.start(f"{title}, {words}", cells, steps)

    return report._replace(start=start)


def _lengths(request: Request, variants: Sequence[Variant]) -> dict[str, int]:
    """Return how long a part is along `seed` and along each axis; seeds are cut first.

    A part has many points of a seed rather than many seeds of a point, because neighbouring
    cells of one seed share their random numbers.
    """
    outputs = [output for each in variants for output in each.traced.all_outputs.values()]
    own_bytes = sum(math.prod(output.shape) * output.dtype.itemsize for output in outputs)
    fitting = min(PART_CELLS // len(variants), PART_BYTES // max(own_bytes, 1))
    cells = max([fitting, *(each.width for each in variants)])
    lengths = {"seed": len(request.seeds), **request.grid.shape}
    for name, length in lengths.items():
        others = math.prod(lengths.values()) // length
        lengths[name] = min(length, max(cells // others, 1))
    return lengths


def _cut(path: Path, request: Request, lengths: Mapping[str, int]) -> Iterator[Part]:
    """Cut the grid into parts of these lengths; the last ones may be shorter."""
    sizes = {"seed": len(request.seeds), **request.grid.shape}
    starts = [range(0, sizes[name], length) for name, length in lengths.items()]
    for number, corner in enumerate(itertools.product(*starts)):
        places = {
            name: slice(start, min(start + length, sizes[name]))
            for start, (name, length) in zip(corner, lengths.items(), strict=True)
        }
        seeds, grid = request.seeds[places["seed"]], request.grid.part(places)
        part = request._replace(seeds=seeds, grid=grid)
        yield Part(path / f"part-{number:06}.nc", part, places)


def _identity(
    request: Request, variants: Sequence[Variant], layout: Layout, lengths: Mapping[str, int]
) -> str:
    """Return a digest of everything that the files of a folder depend on."""
    programs: list[dict[str, str] | None] = []
    for variant in variants:
        programs.append(variant.compiled().provenance)
        if memory_maps.are_scarce():
            variant.forget()
    if None in programs:
        raise InputError(
            "the cell calls back to Python (jax.debug.print?), so that its outputs could depend on "
            "anything: take that out, or sweep without folder="
        )
    labels = {name: [label for label, _ in made] for name, made in request.static_axes.items()}
    grid, seeds = request.grid.coords, request.seeds.tolist()
    text = json.dumps([programs, labels, grid, seeds, layout.dims, dict(lengths)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sweep_of(file: Path) -> str | None:
    """Return the sweep that a file belongs to; None if there is none, or if it is damaged."""
    import h5py

    if not file.exists():
        return None
    try:
        with h5py.File(file) as found:
            return str(found.attrs.get("sweep", "unknown"))
    except OSError:
        return None


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under another name, and give it its name when it is whole.

    The other name is a new one each time, because several processes may run one sweep.
    """
    unfinished = path.with_name(f".toymodels-{secrets.token_hex(8)}{path.suffix}")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
