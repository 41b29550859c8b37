"""The flags of `toymodels run`, one for each field of a `Config`, and the file names they give."""

import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from toymodels.errors import InputError
from toymodels.experiment.loading import Experiment, flat

_OWN = {"out", "store", "smoke", "paper", "help"}
"""The flags of the command itself, whose names no field of a `Config` may have."""


def parse(
    experiment: Experiment, start: Any, flags: Sequence[str]
) -> tuple[Any, Path | None, Path | None]:
    """Read the flags of a run: return the config and the options `--out` and `--store`.

    Args:
        experiment: the experiment; the fields of its `Config` are the flags.
        start: an instance of that `Config`, which gives the values of all other flags.
        flags: the words of the command line.

    Raises:
        ValueError: a field of `Config` has the name of a flag of the command itself.
        SystemExit: a flag is unknown or cannot take its value; a message has been printed.
    """
    taken = sorted(_OWN & flat(start).keys())
    if taken:
        raise InputError(
            f"Config in {experiment.path} has a field {taken[0]!r}, but --{taken[0]} is a flag of "
            "`toymodels run`: rename the field"
        )
    others = " or ".join(f"--{scale}" for scale in experiment.scales if scale != "default")
    scales = f"It runs at its default scale, or at another one with {others}.\n" if others else ""
    parsed: Any = tyro.cli(
        _options(experiment.config, start),
        args=flags,
        config=(tyro.conf.OmitArgPrefixes,),  # the flags of a config inside the config, too
        prog=f"toymodels run {shlex.quote(str(experiment.path))}",
        description=f"{experiment.title}\n\n{scales}Each field of its Config is an option.",
    )
    return parsed.config, parsed.out, parsed.store


def _options(config: type[Any], start: Any) -> type[Any]:
    """Return a dataclass whose fields are the options of the command: the config and two files."""
    out = "The folder for all files. By default the figure of an unchanged Config goes into "
    out += "figures/, and everything else goes into results/."
    store = "A file that keeps finished cells. If a run is stopped, start it again with the same "
    store += "file, and it goes on."
    no_prefix = Annotated[config, tyro.conf.arg(name="")]
    fields: list[Any] = [("config", no_prefix, dataclasses.field(default_factory=lambda: start))]
    for name, metavar, text in (("out", "FOLDER", out), ("store", "FILE", store)):
        shown = tyro.conf.arg(metavar=metavar, help=text, help_behavior_hint="")
        fields.append((name, Annotated[Path | None, shown], dataclasses.field(default=None)))
    return dataclasses.make_dataclass("Options", fields)


def differences(start: Any, config: Any) -> dict[str, str]:
    """Return the fields of a config that differ from those of `start`, as JSON by name."""
    before, after = (
        {name: _compact(value) for name, value in flat(each).items()} for each in (start, config)
    )
    return {name: value for name, value in after.items() if value != before[name]}


def in_a_name(changed: dict[str, str]) -> list[str]:
    """Return changed fields as parts of a file name; each set of values has a name of its own."""
    bare = {
        name: re.sub('"([A-Za-z][A-Za-z0-9.+-]*)"', r"\1", value.strip("[]"))
        for name, value in changed.items()
    }
    parts = [f"{name}={value}" for name, value in bare.items()]
    # No value contains "_", so that two sets of fields never give the same name.
    plain = all(re.fullmatch(r"\w+=[A-Za-z0-9.,+-]+", part) for part in parts)
    if plain and sum(map(len, parts)) <= 80:
        return parts
    text = json.dumps(changed, sort_keys=True)
    return [f"custom-{hashlib.sha256(text.encode()).hexdigest()[:8]}"]


def _compact(value: Any) -> str:
    return json.dumps(value, default=str, separators=(",", ":"))
