"""Run experiments with other seeds, and name the claims whose verdict turns.

A claim that holds with the seeds of its record and fails with others holds by luck.
`make test-seeds` runs the experiments that take a minute of one core or less, as their records
say; `python tests/other_seeds.py NAME ...` runs those that are named. The results are not kept.
A claim about times, as in `scaling`, may also turn because the machine is busier.
"""

import contextlib
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

from toymodels import experiment
from toymodels.experiment import Claim, library, pages
from toymodels.sweeps import program

SHIFTS = (1000, 2000, 3000)
"""The numbers that are added to all seeds; the second and third only if a verdict has turned."""

SECONDS = 60
"""The time that an experiment may take if it is not named."""


class Turned(NamedTuple):
    """A claim of a record, and the claims in its place with other seeds."""

    recorded: Claim
    others: list[Claim]

    def __str__(self) -> str:
        """Return two lines: the statement, and the numbers with their verdicts."""
        numbers = [f"{_verdict(each)} with {each.measured:.5g}" for each in self.others]
        return (
            f"{self.recorded.statement}\n    {self.recorded.range}: the record "
            f"{_verdict(self.recorded)} with {self.recorded.measured:.5g}; other seeds: "
            f"{', '.join(numbers)}"
        )


@contextlib.contextmanager
def shifted(by: int) -> Generator[None]:
    """Add a number to every seed that a sweep has or that is given as a whole number.

    The labels of seeds in results stay, so that an experiment which looks for its seeds finds them.
    """
    data, key, rng = program._key_data, jax.random.key, np.random.default_rng

    def other(seed: Any) -> Any:
        return seed + by if isinstance(seed, int | np.integer) else seed

    with (
        mock.patch.object(program, "_key_data", lambda seeds: data(np.asarray(seeds) + by)),
        mock.patch.object(jax.random, "key", lambda seed, **how: key(other(seed), **how)),
        mock.patch.object(np.random, "default_rng", lambda seed=None: rng(other(seed))),
    ):
        jax.clear_caches()  # functions that were compiled hold the keys of other seeds
        yield
    jax.clear_caches()


def claims(path: Path, shift: int) -> list[Claim]:
    """Return the claims of an experiment at full scale, with its seeds shifted."""
    with shifted(shift):
        loaded = experiment.load(path)
        assert loaded.claims is not None
        return list(loaded.claims(loaded.run(loaded.scales["default"])))


def turned(path: Path, recorded: list[Claim]) -> list[Turned]:
    """Return the claims whose verdict with other seeds differs from that of the record.

    Raises:
        ValueError: the experiment makes another number of claims than its record has.
    """
    found: list[Turned] = []
    pairs = [Turned(each, []) for each in recorded]
    for shift in SHIFTS:
        for pair, claim in zip(pairs, claims(path, shift), strict=True):
            pair.others.append(claim)
        found = [pair for pair in pairs if any(_turns(pair.recorded, own) for own in pair.others)]
        if not found:
            break
    return found


def _turns(recorded: Claim, other: Claim) -> bool:
    return recorded.holds != other.holds


def _verdict(claim: Claim) -> str:
    return "holds" if claim.holds else "fails"


def chosen(names: list[str], records: dict[str, pages.Record]) -> Iterator[str]:
    """Give the names of the experiments to run, beginning with the quickest."""
    seconds = {name: record.processor_seconds or np.inf for name, record in records.items()}
    for name in names or sorted(records, key=lambda name: seconds[name]):
        quick = seconds[name] <= SECONDS and records[name].scale == "default"
        if names or (quick and not name.startswith("benchmark_")):  # times have no seeds
            yield name


def main(names: list[str]) -> int:
    """Print the claims that turn; return 1 if there is one, or if an experiment fails."""
    records, found = pages.read(Path("figures")), 0
    names = list(chosen(names, records))
    for name in names:
        print(f"{name} ...", flush=True)
        try:
            lucky = turned(library.find(name), list(records[name].claims))
        except Exception as error:
            print(f"  it stops with other seeds: {type(error).__name__}: {error}", flush=True)
            found += 1
            continue
        found += len(lucky)
        for pair in lucky:
            print(f"  {pair}", flush=True)
    print(f"{found} claims of {len(names)} experiments turn with other seeds")
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
