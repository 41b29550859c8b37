"""The flags of `toymodels run`, one for each field of a `Config`; names for what they change."""

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


def parse(
    experiment: Experiment, start: Any, flags: Sequence[str]
) -> tuple[Any, Path | None, Path | None]:
    """The config, and the options `--out` and `--store`, from the flags of a run.

    Args:
        experiment: whose `Config` says which flags there are.
        start: an instance of it, the values of the flags that are not given.
        flags: words of the command line.

    Raises:
        ValueError: a field of `Config` has the name of a flag of the command itself.
        SystemExit: a flag is unknown or has no such value; a message has said so.
    """
    taken = sorted(_OWN & flat(start).keys())
    if taken:
        raise InputError(
            f"Config in {experiment.path} has a field {taken[0]!r}, but --{taken[0]} is a flag of "
            "`toymodels run`: rename the field"
        )
    out = "folder for all files; the default is figures/ for the figure of the defaults of the "
    out += "file, results/ for the rest"
    store = "file that keeps finished cells: a run that was stopped goes on from there"
    options = dataclasses.make_dataclass(
        "Options",
        [
            (
                "config",
                # Neither its own fields nor those of a config inside it have a prefix.
                Annotated[experiment.config, tyro.conf.arg(name="")],
                dataclasses.field(default_factory=lambda: start),
            ),
            (
                "out",
                Annotated[Path | None, tyro.conf.arg(help=out)],
                dataclasses.field(default=None),
            ),
            (
                "store",
                Annotated[Path | None, tyro.conf.arg(help=store)],
                dataclasses.field(default=None),
            ),
        ],
    )
    others = " or ".join(f"--{scale}" for scale in experiment.scales if scale != "default")
    scales = f"Runs at its default scale, or at another with {others}.\n" if others else ""
    parsed: Any = tyro.cli(
        options,
        args=flags,
        config=(tyro.conf.OmitArgPrefixes,),
        prog=f"toymodels run {shlex.quote(str(experiment.path))}",
        description=f"{experiment.title}\n\n{scales}The options are the fields of its Config.",
    )
    return parsed.config, parsed.out, parsed.store


def differences(start: Any, config: Any) -> dict[str, str]:
    """The fields of a config that differ from those it started from, as JSON."""
    before, after = (
        {name: _compact(value) for name, value in flat(each).items()} for each in (start, config)
    )
    return {name: value for name, value in after.items() if value != before[name]}


def in_a_name(changed: dict[str, str]) -> list[str]:
    """Changed fields as parts of the name of a file: each set of values has a name of its own."""
    bare = {
        name: re.sub('"([A-Za-z][A-Za-z0-9.+-]*)"', r"\1", value.strip("[]"))
        for name, value in changed.items()
    }
    parts = [f"{name}={value}" for name, value in bare.items()]
    # No value has "_", so that no two sets of fields read alike.
    plain = all(re.fullmatch(r"\w+=[A-Za-z0-9.,+-]+", part) for part in parts)
    if plain and sum(map(len, parts)) <= 80:
        return parts
    text = json.dumps(changed, sort_keys=True)
    return [f"custom-{hashlib.sha256(text.encode()).hexdigest()[:8]}"]


def _compact(value: Any) -> str:
    return json.dumps(value, default=str, separators=(",", ":"))
