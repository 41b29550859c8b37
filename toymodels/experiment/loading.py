"""The reader of an experiment: a file with a `Config`, a `run`, and perhaps `claims` and `plot`.

    Config   a frozen dataclass; its defaults are those of the figure
    run      Config -> xr.Dataset; a run with a keyword `store`, a path, can be resumed
    claims   xr.Dataset -> list of Claim                (optional)
    plot     xr.Dataset -> matplotlib Figure            (optional)
    SMOKE    a Config that runs in seconds, for tests   (optional)
    PAPER    a Config at the paper's own scale          (optional)

`runs.execute` runs an experiment, saves the results, and makes claims and figure from the saved
file alone.
"""

import dataclasses
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xarray as xr

from toymodels.errors import InputError
from toymodels.experiment import library
from toymodels.experiment.claims import Bound as Bound
from toymodels.experiment.claims import Claim as Claim
from toymodels.experiment.claims import Kind as Kind


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts that an experiment file defines, as the docstring of this module lists them."""

    path: Path
    title: str
    config: type[Any]
    run: Callable[..., Any]  # a user wrote it, so it is checked when it returns
    claims: Callable[[xr.Dataset], Any] | None
    plot: Callable[[xr.Dataset], Any] | None
    scales: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the file without its ending."""
        return self.path.stem


def load(path: str | os.PathLike[str]) -> Experiment:
    """Read an experiment from a file anywhere on disk.

    Raises:
        ValueError: the file is missing, is not Python, or defines no experiment.
    """
    path = Path(path)
    if path.suffix != ".py":
        raise InputError(f"{path} is not a Python file: give the path of an experiment")
    module = _imported(path)
    contents = vars(module)
    for name, what in (("Config", "a frozen dataclass"), ("run", "a function of a Config")):
        if name not in contents:
            raise InputError(f"{path} has no {name}: define {name}, {what}; see `toymodels new`")
    config: Any = contents["Config"]
    if not isinstance(config, type) or not dataclasses.is_dataclass(config):
        raise InputError(f"Config in {path} is not a dataclass: decorate it with dataclass")
    missing = dataclasses.MISSING
    fields = [field for field in dataclasses.fields(config) if field.init]
    if bare := [f.name for f in fields if f.default is missing and f.default_factory is missing]:
        raise InputError(
            f"Config in {path} has no default for {', '.join(bare)}: give the value of the figure"
        )
    scales = {"default": config()}
    flat(scales["default"])
    named = {name.lower(): contents.get(name) for name in ("SMOKE", "PAPER")}
    # An experiment may use the name PAPER for something else, such as a source.
    scales |= {name: scale for name, scale in named.items() if isinstance(scale, config)}
    return Experiment(
        path=path,
        title=(module.__doc__ or "").strip().partition("\n")[0],
        config=config,
        run=contents["run"],
        claims=contents.get("claims"),
        plot=contents.get("plot"),
        scales=scales,
    )


def _imported(path: Path) -> types.ModuleType:
    """Return the module of a Python file, after a check that it can be parsed."""
    library.bound_names(path)
    # The name has a prefix, so that a file numbers.py does not replace the library `numbers`.
    name = f"_experiments.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def flat(config: Any) -> dict[str, Any]:
    """Return the fields of a config by name, and with them the fields of configs inside it.

    A `Recipe` is such a config inside another one.

    Raises:
        ValueError: two fields share a name.
    """
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        own = flat(value) if dataclasses.is_dataclass(value) else {field.name: value}
        if twice := sorted(fields.keys() & own.keys()):
            raise InputError(f"Config has two fields {twice[0]!r}: rename one")
        fields |= own
    return fields
