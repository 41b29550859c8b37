"""A claim: a number that a figure shows, what it should be, who says so, and how nearly."""

import dataclasses
import enum
import math
from collections.abc import Iterable
from typing import Any

from toymodels.errors import InputError


class Bound(enum.Enum):
    """The side of the expected number on which a measured one must lie."""

    NEAR = "within"
    AT_LEAST = "at least"
    AT_MOST = "at most"


class Kind(enum.Enum):
    """The kind of a claim says what it tests; each kind is counted apart."""

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
    """The origin of a statement, which also decides what kind of claim it is."""

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
    """A statement about results that can fail.

    `near`, `at_least` and `at_most` make one.

    Attributes:
        statement: one whole sentence that says the quantity, the models and the condition.
        source: where the statement comes from, such as a paper and its section, or a theorem.
        expected: the number that is expected.
        measured: the number that the results give. NaN fails.
        tolerance: the slack allowed against `expected`.
        bound: whether `measured` must be near `expected` or on one side of it.
        note: what was found if the claim fails, and why; shown only then.
        kind: what the claim tests. It is None in files from before there were kinds; such claims
            are counted as unlabelled.
        threshold: whose number the tolerance or the bound is if it is not that of the source: a
            sentence such as "Ours, because the standard error is 0.002."
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
        """Convert whatever is one number, such as an array of no dimensions, to a float."""
        for name in ("expected", "measured", "tolerance"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def holds(self) -> bool:
        """True if `measured` lies where it should."""
        difference = self.measured - self.expected
        return {
            Bound.NEAR: abs(difference) <= self.tolerance,
            Bound.AT_LEAST: difference >= -self.tolerance,
            Bound.AT_MOST: difference <= self.tolerance,
        }[self.bound]

    @property
    def range(self) -> str:
        """The numbers that are allowed, as in "≥ 0.97" or "5 ± 0.1"."""
        sign = {Bound.NEAR: "", Bound.AT_LEAST: "≥ ", Bound.AT_MOST: "≤ "}[self.bound]
        slack = f" ± {self.tolerance:.3g}" if self.tolerance else ""
        return f"{sign}{self.expected:.5g}{slack}"

    def to_json(self) -> dict[str, Any]:
        """Return the claim, and whether it holds, as JSON that `from_json` reads."""
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
        """Return the claim that `to_json` wrote; a file from before there were kinds will do."""
        changed: dict[str, Any] = {
            "measured": float("nan") if fields["measured"] is None else fields["measured"],
            "bound": Bound(fields["bound"]),
            "kind": Kind(fields["kind"]) if fields.get("kind") else None,
        }
        rest = {name: value for name, value in fields.items() if name != "holds"}
        return cls(**{**rest, **changed})


Claims = Iterable[Claim]
"""The return type of `claims` of an experiment, which yields claims or returns a list of them."""


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
        expected=float(expected),  # they may be arrays of one number
        measured=float(measured),
        tolerance=float(tolerance),
        bound=bound,
        note=note,
        kind=source.kind,
        threshold=threshold,
    )
