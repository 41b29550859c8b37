"""Break saved results on purpose, and name the claims that hold whatever happens to them.

A claim that no damage can make fail says nothing about the results. `make test-claims` looks at
all results of `results/`; `python tests/mutations.py FILE.nc` looks at one file.
"""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from toymodels import experiment
from toymodels.experiment import Claim, Kind, library, saving


def broken(results: xr.Dataset) -> Iterator[xr.Dataset]:
    """Give the results with one variable changed, in all ways and for each variable."""
    for name, variable in results.data_vars.items():
        for values in (*_other_numbers(variable.values), *_other_places(variable.values)):
            yield results.assign({name: variable.copy(data=values)})


def _other_numbers(values: np.ndarray) -> Iterator[np.ndarray]:
    """Give arrays of one shape with other numbers; text becomes one word everywhere."""
    if values.dtype.kind not in "biuf":
        if values.size:
            yield np.full_like(values, values.flat[0])
        return
    yield np.zeros_like(values)
    yield np.ones_like(values)
    if values.dtype.kind == "b":
        yield ~values
        return
    yield np.full(values.shape, np.nan)
    yield -values
    yield 10 * values
    yield 0.1 * values


def _other_places(values: np.ndarray) -> Iterator[np.ndarray]:
    """Give an array reversed and shuffled along each of its axes, and shuffled as a whole."""
    rng = np.random.default_rng(0)
    for axis in range(values.ndim):
        yield np.flip(values, axis)
        yield rng.permuted(values, axis=axis)
    if values.ndim:
        yield rng.permuted(values)


def unbreakable(loaded: experiment.Experiment, results: xr.Dataset) -> list[Claim]:
    """Return the claims that hold, and go on to hold after every change of the results."""
    holding = {claim.statement: claim for claim in _claims(loaded, results) if claim.holds}
    for changed in broken(results):
        if not holding:
            break
        try:
            checked = {claim.statement: claim.holds for claim in _claims(loaded, changed)}
        except Exception:
            continue  # an experiment need not cope with all of this
        holding = {says: claim for says, claim in holding.items() if checked.get(says, True)}
    return list(holding.values())


def _claims(loaded: experiment.Experiment, results: xr.Dataset) -> list[Claim]:
    assert loaded.claims is not None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(loaded.claims(results))


def main(files: list[Path]) -> int:
    """Print the claims that cannot fail; return 1 if one of them is no identity."""
    found = 0
    for file in files:
        results = saving.load(file)
        path = library.look_up(results.attrs.get("experiment", file.stem))
        if path is None or (loaded := experiment.load(path)).claims is None:
            print(f"{file}: no experiment of this folder makes claims about it")
            continue
        for claim in unbreakable(loaded, results):
            found += claim.kind is not Kind.IDENTITY
            reason = f" {claim.source}" if claim.kind is Kind.IDENTITY else ""
            what = "an identity" if claim.kind is Kind.IDENTITY else "CANNOT FAIL"
            print(f"{file.stem}: {what}: {claim.statement}{reason}", flush=True)
    print(f"{found} claims of {len(files)} files cannot fail")
    return min(found, 1)


if __name__ == "__main__":
    chosen = [Path(word) for word in sys.argv[1:]] or sorted(Path("results").glob("*.nc"))
    sys.exit(main(chosen))
