"""The pages of a folder of figures, made from the record that each figure has beside it.

README.md     every figure with its picture, what it shows, and the claims that fail
CLAIMS.md     every claim of every figure
FINDINGS.md   the claims that say what was found here first

`insert` puts the sentence of `total`, which counts all claims, into a page of the project.
"""

import dataclasses
import itertools
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from toymodels.errors import InputError
from toymodels.experiment import files, library
from toymodels.experiment.claims import Claim, Kind

HEADINGS = {
    "CLAIMS.md": "# Claims",
    "FINDINGS.md": "# New findings",
    "README.md": "# Figures and their claims",
}
_PLURALS = {
    "paper": "numbers of papers",
    "prediction": "predictions of theory",
    "finding": "new findings",
    "identity": "identities",
    "unlabelled": "unlabelled",
}
# Sources of findings that say no more than the head of FINDINGS.md.
_SAID_AT_THE_HEAD = ("First measured here.", "Found here.")


@dataclasses.dataclass(frozen=True)
class Record:
    """The contents of the file `NAME.json` beside a figure.

    Attributes:
        experiment: the name of the experiment that the figure belongs to.
        claims: the claims, checked when the figure was drawn.
        scale: "default", "paper" or "smoke".
        seconds: how long the run took; None if that is not known.
        processor_seconds: the processor time of the run; None if that is not known.
    """

    experiment: str
    claims: Sequence[Claim]
    scale: str = "unknown"
    seconds: float | None = None
    processor_seconds: float | None = None

    @property
    def estimate(self) -> float | None:
        """The seconds that a run takes on a computer that does nothing else, if they are known.

        The time on the clock is too long if other programs ran, and the processor time is too long
        if several processors worked. So the shorter of both is the better estimate.
        """
        known = [each for each in (self.seconds, self.processor_seconds) if each]
        return min(known, default=None)


def is_record(contents: Any) -> bool:
    """Return whether the contents of a JSON file are the record of a figure."""
    return isinstance(contents, dict) and {"experiment", "claims"} <= contents.keys()


def read(folder: Path) -> dict[str, Record]:
    """Return the records of all figures in `folder` by the names of their files.

    Files of other programs are left alone. A warning names each record that is broken.
    """
    records: dict[str, Record] = {}
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            contents = json.loads(files.read(path))
            if is_record(contents):
                records[path.stem] = Record(
                    experiment=contents["experiment"],
                    claims=tuple(map(Claim.from_json, contents["claims"])),
                    scale=contents.get("scale", "unknown"),
                    seconds=contents.get("seconds"),
                    processor_seconds=contents.get("processor_seconds"),
                )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            warnings.warn(
                f"{path} is left out because its claims cannot be read: {error}", stacklevel=2
            )
    return records


def write(folder: Path, experiments: Mapping[str, Path] | None = None) -> None:
    """Write the pages of a folder, and write them again if another run has ended meanwhile.

    A README.md that another program or a person has written is left alone.

    Args:
        folder: the folder of the figures.
        experiments: the files of some experiments by name; the others are looked up by name.
    """
    before: dict[str, str] = {}
    # Texts are compared, because a record with NaN is not equal to itself.
    while before != (pages := _pages(read(folder), experiments or {})):
        before = pages
        for name, text in pages.items():
            page = folder / name
            if page.exists() and files.read(page) == text:
                continue
            if name != "README.md" or is_ours(page):
                files.check_writable(page)
                files.write(page, text)


def is_ours(page: Path) -> bool:
    """Return whether a page is missing, or was written by `write`."""
    return not page.exists() or files.read(page).startswith(HEADINGS[page.name] + "\n")


def count(claims: Iterable[Claim]) -> dict[str, tuple[int, int]]:
    """Return, for each kind that occurs, how many claims hold and how many there are."""
    counts: dict[str, tuple[int, int]] = {}
    claims = list(claims)
    for kind in (*Kind, None):
        of_kind = [claim for claim in claims if claim.kind is kind]
        if of_kind:
            name = kind.value if kind else "unlabelled"
            counts[name] = (sum(claim.holds for claim in of_kind), len(of_kind))
    return counts


def total(records: Mapping[str, Record]) -> str:
    """Return a sentence that counts the claims of all figures, in all and by kind."""
    claims = list(itertools.chain(*(record.claims for record in records.values())))
    parts = [f"{held} of {all_} {_PLURALS[kind]}" for kind, (held, all_) in count(claims).items()]
    return f"{_held(claims)} claims hold: {', '.join(parts) or 'there are none'}."


def show(title: str, claims: Sequence[Claim], console: Console) -> None:
    """Print a table of claims."""
    table = Table(title=escape(title), title_justify="left")
    for column in ("", "kind", "claim", "expected", "measured"):
        table.add_column(column, overflow="fold")
    for claim in claims:
        mark = "[green]pass[/]" if claim.holds else "[red]FAIL[/]"
        statement = escape(claim.statement)
        if claim.note and not claim.holds:
            statement += f"\n[dim]{escape(claim.note)}[/]"
        table.add_row(mark, _kind(claim), statement, claim.range, f"{claim.measured:.5g}")
    console.print(table)


def all_claims(records: Mapping[str, Record]) -> str:
    """Return the page CLAIMS.md: a table of the claims of each figure."""
    lines = [
        HEADINGS["CLAIMS.md"],
        "",
        f"`toymodels` writes this page and checks every claim whenever a figure is drawn. "
        f"{total(records)}",
    ]
    for name, record in records.items():
        lines += ["", f"## {name}", "", "| | kind | claim | expected | measured | source |"]
        lines += ["|---|---|---|---|---|---|"]
        for claim in record.claims:
            mark = "pass" if claim.holds else "**FAIL**"
            note = f" *{claim.note}*" if claim.note and not claim.holds else ""
            threshold = f" Threshold: {claim.threshold}" if claim.threshold else ""
            cells = [
                mark,
                _kind(claim),
                _escaped(claim.statement + note),
                claim.range,
                f"{claim.measured:.5g}",
                _escaped(claim.source + threshold),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def findings(records: Mapping[str, Record]) -> str:
    """Return the page FINDINGS.md: the claims of each figure that no paper makes, as far as known.

    The source of such a claim says what the literature has instead, or why it should hold.
    """
    lines = [
        HEADINGS["FINDINGS.md"],
        "",
        "`toymodels` writes this page whenever a figure is drawn. Each line is a claim that was "
        "first measured here, as far as we know. Its figure says from which models and seeds it "
        "comes, and [CLAIMS.md](CLAIMS.md) says who chose the expected number.",
    ]
    for name, record in records.items():
        found = [claim for claim in record.claims if claim.kind is Kind.FINDING]
        if found:
            lines += ["", f"## {name}", "", f"[The figure](README.md#{name})", ""]
        for claim in found:
            fails = "" if claim.holds else " **This claim fails.**"
            source = _sentence(claim.source)
            said = "" if source in _SAID_AT_THE_HEAD else f" *{source}*"
            lines.append(
                f"* {claim.statement} Measured: {claim.measured:.4g}, expected: {claim.range}."
                f"{fails}{said}"
            )
    return "\n".join([*lines, ""])


def gallery(records: Mapping[str, Record], experiments: Mapping[str, Path]) -> str:
    """Return the page README.md: each figure with what it shows and how it was made.

    Args:
        records: the records by the names of the figures.
        experiments: the files of the experiments by name; their docstrings say what is shown.
    """
    lines = [
        HEADINGS["README.md"],
        "",
        "`toymodels` writes this page whenever a figure is drawn. "
        f"{total(records)} A number of a paper is one that the paper reports, a prediction was "
        "known from a theory before the run, a new finding is in no paper that we know, and an "
        "identity is a theorem. [CLAIMS.md](CLAIMS.md) has every claim, and "
        "[FINDINGS.md](FINDINGS.md) the new findings.",
        "",
        *_table(records),
    ]
    for name, record in records.items():
        lines += ["", f"## {name}", "", f"![{name}]({name}.png)"]
        if path := experiments.get(record.experiment):
            text = library.docstring(path)
            lines += ["", f"**{text.splitlines()[0] if text else name}**"]
            for heading in ("Claim", "Reproduces", "Selection"):
                if section := library.section(text, heading):
                    lines += ["", f"*{heading}.* {section}"]
        lines += ["", f"*Made by* {_command(name, record)}."]
        failed = [claim for claim in record.claims if not claim.holds]
        end = "These fail:" if failed else "None fails."
        lines += ["", f"[{_held(record.claims)} claims hold.](CLAIMS.md#{name}) {end}", ""]
        lines += [f"* {_failure(claim)}" for claim in failed]
    return "\n".join([*lines, ""]).replace("\n\n\n", "\n\n")


def _table(records: Mapping[str, Record]) -> list[str]:
    """Return one row for each figure: how many of its claims hold, by kind."""
    kinds = list(count(itertools.chain(*(record.claims for record in records.values()))))
    heads = ["figure", "claims that hold", *(_PLURALS[kind] for kind in kinds)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, record in records.items():
        counts = count(record.claims)
        cells = [
            f"[{name}](#{name})",
            f"[{_held(record.claims)}](CLAIMS.md#{name})",
            *("{} of {}".format(*counts[kind]) if kind in counts else "" for kind in kinds),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def insert(text: str, page: Path) -> None:
    """Put a text between the marks `<!-- claims -->` and `<!-- /claims -->` of a page.

    Raises:
        ValueError: the page is missing, not UTF-8, or without the marks.
    """
    old = files.read(page)
    start, end = "<!-- claims -->", "<!-- /claims -->"
    before, found, rest = old.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise InputError(f"{page} has no lines {start} and then {end}: add them")
    line = "\r\n" if "\r\n" in old else "\n"
    files.write(page, before + start + line + text.replace("\n", line) + end + after)


def _pages(records: Mapping[str, Record], experiments: Mapping[str, Path]) -> dict[str, str]:
    names = {record.experiment for record in records.values()}
    found = {name: path for name in names if (path := library.look_up(name))}
    return {
        "README.md": gallery(records, found | dict(experiments)),
        "CLAIMS.md": all_claims(records),
        "FINDINGS.md": findings(records),
    }


def _command(name: str, record: Record) -> str:
    """Say which command made a figure, which fields it changed, and how long it took."""
    scale = [f"--{record.scale}"] if record.scale in ("smoke", "paper") else []
    command = " ".join(["toymodels", "run", record.experiment, *scale])
    start = "_".join([record.experiment, *([record.scale] if scale else [])])
    changed = name.removeprefix(start).strip("_")
    fields = f" with `{changed}`" if changed else ""
    seconds = "" if record.estimate is None else f" in {record.estimate:.0f} seconds"
    return f"`{command}`{fields}{seconds}"


def _failure(claim: Claim) -> str:
    return f"{claim.statement} Measured: {claim.measured:.4g}, expected: {claim.range}."


def _sentence(text: str) -> str:
    """Return a text with a capital at its beginning and a full stop at its end.

    A name of code, such as `toymodels.theory.optimum`, keeps its spelling.
    """
    first = text.split(" ", 1)[0].rstrip(".,")
    begin = text[:1] if "." in first or "_" in first else text[:1].upper()
    return begin + text[1:] + ("" if text.endswith(".") else ".")


def _held(claims: Sequence[Claim]) -> str:
    return f"{sum(claim.holds for claim in claims)} of {len(claims)}"


def _kind(claim: Claim) -> str:
    return claim.kind.value if claim.kind else "unlabelled"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
