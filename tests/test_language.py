"""Docstrings begin with what they name or do, and the statement of a claim stands alone.

`python tests/test_language.py` prints every fault.
"""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A docstring begins with a verb ("Return ..."), with a phrase that names the thing ("The expected
# loss of ...") or, in a test, with the subject of a sentence. These words begin a fragment that
# only its place explains, as "Of one activation.", or point at something before them, as "It is 1."
NO_BEGINNING = """
about above across after against also among and as at because before below beside besides between
both but by due during else even except following for from given here how if in inside instead into
is it its least less like more most near neither nor not of off on once onto or out outside over per
since so such than that then there these they this those through till to towards under until unless
unlike up upon using what whatever when whenever where whereas whether which while who whom whose
why with within without
""".split()

# A statement that begins so continues another one, which a reader of a table does not see.
BACK_REFERENCES = re.compile(
    r"(and|but|or|nor|so|then|also|too|again|the same|the other|the others|the rest|whose|which|who"
    r"|where|there|none|neither|either|this|these|those|that|it|its|they|their|them|such|likewise"
    r"|of these|of those|all of them|some of them|for these|in these|here|at that|on that)\b",
    re.IGNORECASE,
)


def docstrings(path):
    """Yield each docstring of a file, with the line where it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        described = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if described and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def faults_of_docstring(text):
    """Yield the faults of the beginning of a docstring."""
    summary = text.partition("\n\n")[0].replace("\n", " ").strip()
    first = re.match(r"[\w-]*", summary)[0]
    if first.lower() in NO_BEGINNING:
        yield f"begins with {first!r}"
    if first[:1].islower():
        yield "does not begin with a capital letter"
    if not re.search(r"[.:?!]['\")]?$", summary):
        yield "does not end with a full stop"


def faults_of_statement(text):
    """Yield the faults of the statement of a claim."""
    if found := BACK_REFERENCES.match(text):
        yield f"begins with {found[0]!r}"
    if not re.match(r"[A-Z\d$]", text):
        yield "does not begin with a capital letter"
    if not text.endswith((".", ".)")):
        yield "does not end with a full stop"


def faults():
    """Yield every fault as the file, the place in it, the fault, and the words."""
    for path in MODULES + TESTS:
        for line, text in docstrings(path):
            for fault in faults_of_docstring(text):
                yield path, line, fault, text.partition("\n")[0]
    for path in FIGURES:
        for number, claim in enumerate(json.loads(path.read_text())["claims"], 1):
            for fault in faults_of_statement(claim["statement"]):
                yield path, f"claim {number}", fault, claim["statement"]


def pattern(node):
    """Return a regular expression of the texts that an expression makes; None if it makes none."""
    match node:
        case ast.Constant(value=str(text)):
            return re.escape(text)
        case ast.JoinedStr(values=parts):
            return "".join(pattern(part) or ".*" for part in parts)
        case ast.BinOp(op=ast.Add(), left=left, right=right) if pattern(left):
            return pattern(left) + (pattern(right) or ".*")
    return None


def patterns(path):
    """Yield every text that a file makes, also in several lines: `says = ...` and `says += ...`."""
    for parent in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        begun = {}
        for node in ast.iter_child_nodes(parent):
            if found := pattern(node):
                yield found
            found = pattern(getattr(node, "value", None))
            if isinstance(node, ast.Assign) and found:
                begun |= {target.id: found for target in node.targets if hasattr(target, "id")}
            if isinstance(node, ast.AugAssign) and found:
                name = getattr(node.target, "id", None)
                if name in begun:
                    begun[name] += found
                    yield begun[name]


MODULES = sorted((ROOT / "toymodels").rglob("*.py"))
TESTS = sorted((ROOT / "tests").glob("*.py"))
FIGURES = sorted((ROOT / "figures").glob("*.json"))


@pytest.mark.parametrize("path", MODULES + TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_name_the_thing_or_say_what_is_done(path):
    found = [
        (line, fault) for line, text in docstrings(path) for fault in faults_of_docstring(text)
    ]
    assert not found


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_the_statement_of_a_claim_is_a_sentence_that_stands_alone(path):
    statements = [claim["statement"] for claim in json.loads(path.read_text())["claims"]]
    assert not [(text, fault) for text in statements for fault in faults_of_statement(text)]


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_a_committed_claim_has_the_words_of_its_experiment(path):
    """Words that change in the file of an experiment change in its figure, too."""
    figure = json.loads(path.read_text())
    source = ROOT / "experiments" / f"{figure['experiment'].removesuffix('_paper')}.py"
    made = [re.compile(text) for text in patterns(source) if len(text.replace(".*", "")) > 12]
    for claim in figure["claims"]:
        for text in filter(None, (claim["statement"], claim["note"], claim["threshold"])):
            assert any(each.fullmatch(text) for each in made), text


@pytest.mark.parametrize(
    "text",
    [
        "and separability index, ten bins, mean",
        "And the separability index is high.",
        "the same of the antipodal pair",
        "The same holds for the antipodal pair.",
        "whose latents tell less",
        "None does.",
        "Of these, all are pairs.",
        "density 0.1: neurons serve several features.",
        "Neurons serve several features",
    ],
)
def test_a_statement_that_needs_another_one_is_found(text):
    assert list(faults_of_statement(text))


def test_a_statement_that_stands_alone_is_accepted():
    text = "The best of ten seeds is in the phase of the closed form in 97 % of all cells."
    assert not list(faults_of_statement(text))
    assert not list(faults_of_statement("Andreev's bound holds for every model."))


@pytest.mark.parametrize(
    "text", ["Of one activation.", "Where descents ended.", "It is 1.", "returns x.", "X"]
)
def test_a_docstring_that_is_a_fragment_is_found(text):
    assert list(faults_of_docstring(text))


if __name__ == "__main__":
    for path, place, fault, text in faults():
        print(f"{path.relative_to(ROOT)}:{place}: {fault}: {text}")
