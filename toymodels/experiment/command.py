"""The command line of one experiment: `toymodels run NAME FLAGS` or `python my_idea.py FLAGS`."""

import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from toymodels.errors import InputError
from toymodels.experiment import library, messages


def main(file: str) -> None:
    """Run the experiment in `file` with the flags of the command line: the last line of one."""
    with messages.exits():
        run(library.find(file), sys.argv[1:])


def run(path: Path, words: Sequence[str]) -> None:
    """Run the experiment in a file, check its claims and draw its figure.

    Only the defaults of a scale draw into `figures/`. Everything else goes into `results/`, under
    a name that says which fields of the config were changed.

    Args:
        path: the file of the experiment.
        words: the words of the command line that follow it: a scale, and the fields of its Config.

    Raises:
        ValueError: the file is no experiment, or it has no such scale.
        SystemExit: a flag is unknown (2), a claim fails (3), or the run was stopped.
    """
    scale, flags = _scale(path, words)
    # These imports take seconds, so they come after the first checks.
    from toymodels.experiment import loading, runs
    from toymodels.experiment.flags import differences, in_a_name, parse

    experiment = loading.load(path)
    if scale not in experiment.scales:
        raise InputError(f"{path} runs at one scale of: {', '.join(experiment.scales)}")
    start = experiment.scales[scale]
    config, out, store = parse(experiment, start, flags)
    changed = differences(start, config)
    parts = [path.stem, *([] if scale == "default" else [scale]), *in_a_name(changed)]
    published = scale != "smoke" and not changed
    holds = runs.execute(
        experiment,
        config,
        name="_".join(parts),
        data=out or Path("results"),
        figures=out or Path("figures" if published else "results"),
        store=store,
        scale=scale,
    )
    if not holds:
        raise SystemExit(3)


def draw(
    path: Path,
    *,
    scale: str = "default",
    file: Path | None = None,
    folder: Path | None = None,
    formats: Sequence[str] | None = None,
) -> None:
    """Check and draw what an experiment has saved, without running it.

    Args:
        path: the file of the experiment.
        scale: which of its own scales to draw, if no file is given.
        file: the saved results; None stands for those of `scale` in `results/`.
        folder: where claims and figure go; None stands for where the run put them.
        formats: the formats of the figure; None stands for PNG and SVG.

    Raises:
        ValueError: there are no such results, or they are not of this experiment.
        SystemExit: a claim fails (3), or `claims` or `plot` of the experiment has failed.
    """
    ends = {"default": "", "paper": "_paper", "smoke": "_smoke"}
    results = Path("results")
    if file is None:
        file = results / f"{path.stem}{ends[scale]}.nc"
        if not os.path.isfile(file):
            others = sorted(results.glob(f"{glob.escape(path.stem)}*.nc"))
            saved = f"there are {', '.join(map(str, others))}" if others else "nothing is saved"
            raise InputError(
                f"{file} does not exist: give one with --from, or run it first; {saved}"
            )
    if folder is None:
        published = {results / f"{path.stem}{ends[scale]}.nc" for scale in ("default", "paper")}
        folder = Path("figures") if file in published else file.parent

    from toymodels.experiment import loading, runs

    if not runs.draw(loading.load(path), file, folder=folder, formats=formats or ("png", "svg")):
        raise SystemExit(3)


def _scale(path: Path, words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the scale that the words ask for, and the other words; the file is not yet run."""
    asked = {word for word in words if word in ("--smoke", "--paper")}
    names = library.bound_names(path)
    possible = [scale for scale in ("smoke", "paper") if {scale.upper(), "*"} & names]
    if len(asked) > 1 or not asked <= {f"--{scale}" for scale in possible}:
        raise InputError(f"{path} runs at one scale of: {', '.join(['default', *possible])}")
    scale = next(iter(asked), "--default").removeprefix("--")
    return scale, [word for word in words if word not in asked]
