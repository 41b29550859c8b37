"""A claim: a number that a figure shows, what it should be, who says so, and how nearly."""

import dataclasses
import enum
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from toymodels.errors import InputError


class Bound(enum.Enum):
    """How a measured number is held against the expected one."""

    NEAR = "within"
    AT_LEAST = "at least"
    AT_MOST = "at most"


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
    """

    statement: str
    source: str
    expected: float
    measured: float
    tolerance: float = 0.0
    bound: Bound = Bound.NEAR
    note: str = ""

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
        return {**fields, "measured": measured, "bound": self.bound.value, "holds": self.holds}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Claim":
        """The inverse of `to_json`."""
        changed: dict[str, Any] = {
            "measured": float("nan") if fields["measured"] is None else fields["measured"],
            "bound": Bound(fields["bound"]),
        }
        rest = {name: value for name, value in fields.items() if name != "holds"}
        return cls(**{**rest, **changed})


def read(folder: Path) -> dict[str, list[Claim]]:
    """The claims of every figure in `folder`, by the name of its file."""
    return {
        path.stem: [Claim.from_json(fields) for fields in json.loads(path.read_text())["claims"]]
        for path in sorted(folder.glob("*.json"))
    }


def show(title: str, claims: Sequence[Claim], console: Console) -> None:
    """Print a table of claims."""
    table = Table(title=title, title_justify="left")
    for column in ("", "claim", "expected", "measured"):
        table.add_column(column, overflow="fold")
    for claim in claims:
        mark = "[green]pass[/]" if claim.holds else "[red]FAIL[/]"
        statement = escape(claim.statement)
        if _finding(claim):
            statement += f"\n[dim]{escape(claim.note)}[/]"
        table.add_row(mark, statement, claim.range, f"{claim.measured:.5g}")
    console.print(table)


def markdown(claims: dict[str, list[Claim]]) -> str:
    """The claims of all figures as a page."""
    flat = [claim for group in claims.values() for claim in group]
    lines = [
        "# Claims",
        "",
        "Written by `toymodels run`, checked every time a figure is drawn. "
        f"{sum(claim.holds for claim in flat)} of {len(flat)} hold.",
    ]
    for name, group in claims.items():
        lines += ["", f"## {name}", "", "| | claim | expected | measured | source |"]
        lines += ["|---|---|---|---|---|"]
        for claim in group:
            note = f" *{claim.note}*" if _finding(claim) else ""
            lines.append(f"{_cells(claim, claim.statement + note)} {claim.source} |")
    return "\n".join([*lines, ""])


def summary(claims: dict[str, list[Claim]], folder: Path) -> str:
    """One row for each figure in `folder`: how many of its claims hold, and which fail."""
    lines = ["| figure | claims that hold | those that fail |", "|---|---|---|"]
    for name, group in claims.items():
        held = f"{sum(claim.holds for claim in group)} of {len(group)}"
        failed = "<br>".join(
            f"{_escaped(claim.statement)}: {claim.measured:.4g}, expected {claim.range}"
            for claim in group
            if not claim.holds
        )
        figure = f"[{name}]({folder.as_posix()}/{name}.png)"
        lines.append(f"| {figure} | [{held}]({folder.as_posix()}/CLAIMS.md#{name}) | {failed} |")
    return "\n".join([*lines, ""])


def insert(table: str, page: Path) -> None:
    """Put a table between the marks `<!-- claims -->` and `<!-- /claims -->` of a page."""
    text = page.read_text()
    start, end = "<!-- claims -->\n", "<!-- /claims -->"
    if start not in text or end not in text:
        raise InputError(f"{page} has no lines {start.strip()} and {end}: add them")
    page.write_text(text.partition(start)[0] + start + table + end + text.partition(end)[2])


def _finding(claim: Claim) -> bool:
    return bool(claim.note) and not claim.holds


def _cells(claim: Claim, statement: str) -> str:
    mark = "pass" if claim.holds else "**FAIL**"
    return f"| {mark} | {_escaped(statement)} | {claim.range} | {claim.measured:.5g} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
