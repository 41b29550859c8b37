"""A claim: a number that a figure shows, what it should be, who says so, and how nearly."""

import dataclasses
import enum
import itertools
import json
import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from toymodels.errors import InputError
from toymodels.experiment import files

HEADING = "# Claims"
_PLURALS = {
    "paper": "numbers of papers",
    "prediction": "own predictions",
    "finding": "new findings",
    "identity": "identities",
    "unlabelled": "unlabelled",
}


class Bound(enum.Enum):
    """How a measured number is held against the expected one."""

    NEAR = "within"
    AT_LEAST = "at least"
    AT_MOST = "at most"


class Kind(enum.Enum):
    """What a claim tests; each kind is counted apart."""

    PAPER = "paper"
    """A number or a picture that a paper reports is found again."""
    PREDICTION = "prediction"
    """A theory, of ours or of a paper, said the number before the experiment was run."""
    FINDING = "finding"
    """The expected number, or the side of it, was found here first."""
    IDENTITY = "identity"
    """An identity or a theorem: only rounding or a mistake in the code can break it."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a statement comes from, and what kind of claim it makes."""

    kind: Kind
    text: str


def paper(where: str) -> Source:
    """Return the source of a number or picture of a paper: the paper and its section."""
    return Source(Kind.PAPER, where)


def prediction(where: str) -> Source:
    """Return the source of a number that a theory said before the experiment: the theory."""
    return Source(Kind.PREDICTION, where)


def finding(where: str) -> Source:
    """Return the source of a number that was found here first: how it was found."""
    return Source(Kind.FINDING, where)


def identity(where: str) -> Source:
    """Return the source of an identity, which only rounding or a mistake can break: the theorem."""
    return Source(Kind.IDENTITY, where)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement that can fail.

    Attributes:
        statement: what the figure shows, in one line.
        source: where `expected` comes from: a paper and its section, a theorem.
        expected: the number.
        measured: what the results give. NaN fails.
        tolerance: slack allowed against `expected`.
        bound: near `expected` within `tolerance`, or on one side of it.
        note: shown if the claim fails: what was found, and why.
        kind: what the claim tests. None, of files from before there were kinds, is counted as
            unlabelled.
        threshold: whose `tolerance` or one-sided `expected` it is if the source does not give
            it: a sentence such as "ours, because the standard error is 0.002".
    """

    statement: str
    source: str
    expected: float
    measured: float
    tolerance: float = 0.0
    bound: Bound = Bound.NEAR
    note: str = ""
    kind: Kind | None = dataclasses.field(kw_only=True)
    threshold: str = dataclasses.field(default="", kw_only=True)

    def __post_init__(self) -> None:
        """Take whatever is one number, such as an array of no dimensions."""
        for name in ("expected", "measured", "tolerance"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def holds(self) -> bool:
        """Whether `measured` is where it should be."""
        difference = self.measured - self.expected
        return {
            Bound.NEAR: abs(difference) <= self.tolerance,
            Bound.AT_LEAST: difference >= -self.tolerance,
            Bound.AT_MOST: difference <= self.tolerance,
        }[self.bound]

    @property
    def range(self) -> str:
        """`expected`, `bound` and `tolerance` as a reader writes them."""
        sign = {Bound.NEAR: "", Bound.AT_LEAST: "≥ ", Bound.AT_MOST: "≤ "}[self.bound]
        slack = f" ± {self.tolerance:.3g}" if self.bound is Bound.NEAR or self.tolerance else ""
        return f"{sign}{self.expected:.5g}{slack}"

    def to_json(self) -> dict[str, Any]:
        """The claim and whether it holds, for `from_json`."""
        fields = dataclasses.asdict(self)
        # NaN and infinity are not JSON.
        measured = self.measured if math.isfinite(self.measured) else None
        return {
            **fields,
            "measured": measured,
            "bound": self.bound.value,
            "kind": self.kind and self.kind.value,
            "holds": self.holds,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Claim":
        """The inverse of `to_json`; files from before there were kinds are read as well."""
        changed: dict[str, Any] = {
            "measured": float("nan") if fields["measured"] is None else fields["measured"],
            "bound": Bound(fields["bound"]),
            "kind": Kind(fields["kind"]) if fields.get("kind") else None,
        }
        rest = {name: value for name, value in fields.items() if name != "holds"}
        return cls(**{**rest, **changed})


def near(
    statement: str,
    expected: Any,
    measured: Any,
    source: Source,
    *,
    within: float,
    threshold: str = "",
    note: str = "",
) -> Claim:
    """Claim that a measured number is `within` a tolerance of the expected one.

    Args:
        statement: one whole sentence that says the quantity, the models and the condition.
        expected: the number that the source gives.
        measured: the number that the results give. NaN fails.
        source: where the statement comes from.
        within: the largest difference allowed.
        threshold: whose tolerance it is, such as "Ours, because a cell is 7 % wide."
        note: shown if the claim fails: what was found, and why.
    """
    return _claim(Bound.NEAR, statement, expected, measured, source, within, threshold, note)


def at_least(
    statement: str,
    minimum: Any,
    measured: Any,
    source: Source,
    *,
    slack: float = 0.0,
    threshold: str = "",
    note: str = "",
) -> Claim:
    """Claim that a measured number is at least `minimum`, less some slack; see `near`."""
    return _claim(Bound.AT_LEAST, statement, minimum, measured, source, slack, threshold, note)


def at_most(
    statement: str,
    maximum: Any,
    measured: Any,
    source: Source,
    *,
    slack: float = 0.0,
    threshold: str = "",
    note: str = "",
) -> Claim:
    """Claim that a measured number is at most `maximum`, plus some slack; see `near`."""
    return _claim(Bound.AT_MOST, statement, maximum, measured, source, slack, threshold, note)


def _claim(
    bound: Bound,
    statement: str,
    expected: Any,
    measured: Any,
    source: Any,
    tolerance: float,
    threshold: str,
    note: str,
) -> Claim:
    if not isinstance(source, Source):
        raise InputError(
            f"source is {source!r}: give tm.paper(...), tm.prediction(...), tm.finding(...) or "
            "tm.identity(...), which say the kind of the claim"
        )
    return Claim(
        statement=statement,
        source=source.text,
        expected=expected,
        measured=measured,
        tolerance=tolerance,
        bound=bound,
        note=note,
        kind=source.kind,
        threshold=threshold,
    )


def read(folder: Path) -> dict[str, list[Claim]]:
    """The claims of every figure in `folder`, by the name of its file.

    Files of others are left alone; a warning names one that is broken.
    """
    groups: dict[str, list[Claim]] = {}
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            record = json.loads(files.read(path))
            if is_record(record):
                groups[path.stem] = [Claim.from_json(fields) for fields in record["claims"]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            warnings.warn(
                f"{path} is left out, for it holds no claims that can be read: {error}",
                stacklevel=2,
            )
    return groups


def is_record(contents: Any) -> bool:
    """Whether the contents of a JSON file are those of a figure, and not of somebody else."""
    return isinstance(contents, dict) and {"experiment", "claims"} <= contents.keys()


def count(claims: Iterable[Claim]) -> dict[str, tuple[int, int]]:
    """How many claims of each kind hold, of how many; kinds without a claim are left out."""
    counts: dict[str, tuple[int, int]] = {}
    claims = list(claims)
    for kind in (*Kind, None):
        of_kind = [claim for claim in claims if claim.kind is kind]
        if of_kind:
            name = kind.value if kind else "unlabelled"
            counts[name] = (sum(claim.holds for claim in of_kind), len(of_kind))
    return counts


def total(claims: Iterable[Claim]) -> str:
    """The counts of all claims and of each kind as a sentence without its full stop."""
    claims = list(claims)
    parts = [f"{held} of {all_} {_PLURALS[kind]}" for kind, (held, all_) in count(claims).items()]
    held = sum(claim.holds for claim in claims)
    return f"{held} of {len(claims)} claims hold: {', '.join(parts) or 'there are none'}"


def show(title: str, claims: Sequence[Claim], console: Console) -> None:
    """Print a table of claims."""
    table = Table(title=escape(title), title_justify="left")
    for column in ("", "kind", "claim", "expected", "measured"):
        table.add_column(column, overflow="fold")
    for claim in claims:
        mark = "[green]pass[/]" if claim.holds else "[red]FAIL[/]"
        statement = escape(claim.statement)
        if _explained(claim):
            statement += f"\n[dim]{escape(claim.note)}[/]"
        table.add_row(mark, _kind(claim), statement, claim.range, f"{claim.measured:.5g}")
    console.print(table)


def markdown(claims: dict[str, list[Claim]]) -> str:
    """The claims of all figures as a page."""
    lines = [
        HEADING,
        "",
        "Written by `toymodels run`, checked every time a figure is drawn. "
        f"{total(itertools.chain(*claims.values()))}.",
    ]
    for name, group in claims.items():
        lines += ["", f"## {name}", "", "| | kind | claim | expected | measured | source |"]
        lines += ["|---|---|---|---|---|---|"]
        for claim in group:
            mark = "pass" if claim.holds else "**FAIL**"
            note = f" *{claim.note}*" if _explained(claim) else ""
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


def summary(claims: dict[str, list[Claim]], folder: Path) -> str:
    """The total, and one row for each figure in `folder`: what holds, by kind, and what fails."""
    kinds = list(count(itertools.chain(*claims.values())))
    heads = ["figure", "claims that hold", *(_PLURALS[kind] for kind in kinds), "those that fail"]
    lines = [
        f"{total(itertools.chain(*claims.values()))}.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for name, group in claims.items():
        counts = count(group)
        held = f"{sum(claim.holds for claim in group)} of {len(group)}"
        failed = "<br>".join(
            f"{_escaped(claim.statement)}: {claim.measured:.4g}, expected {claim.range}"
            for claim in group
            if not claim.holds
        )
        cells = [
            f"[{name}]({folder.as_posix()}/{name}.png)",
            f"[{held}]({folder.as_posix()}/CLAIMS.md#{name})",
            *("{} of {}".format(*counts[kind]) if kind in counts else "" for kind in kinds),
            failed,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def insert(table: str, page: Path) -> None:
    """Put a table between the marks `<!-- claims -->` and `<!-- /claims -->` of a page.

    Raises:
        ValueError: the page is missing, not UTF-8, or without the marks.
    """
    text = files.read(page)
    start, end = "<!-- claims -->", "<!-- /claims -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise InputError(f"{page} has no lines {start} and then {end}: add them")
    line = "\r\n" if "\r\n" in text else "\n"
    files.write(page, before + start + line + table.replace("\n", line) + end + after)


def _explained(claim: Claim) -> bool:
    return bool(claim.note) and not claim.holds


def _kind(claim: Claim) -> str:
    return claim.kind.value if claim.kind else "unlabelled"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
