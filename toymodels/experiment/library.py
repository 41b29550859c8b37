"""The files of experiments, found by path or by name and read without running them."""

import ast
import difflib
import os
import re
from collections.abc import Collection
from pathlib import Path

from toymodels.errors import InputError


def bound_names(path: Path) -> set[str]:
    """Return the names that a Python file defines, read without running it.

    Raises:
        ValueError: there is no such file, or it is not Python.
    """
    body = _parsed(path).body
    names = {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        names |= {
            inner.id
            for inner in ast.walk(node)
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
        }
    return names


def docstring(path: Path) -> str:
    """Return the docstring of a file, read without running it; its first line is the title.

    Raises:
        ValueError: there is no such file, or it is not Python.
    """
    return ast.get_docstring(_parsed(path)) or ""


def section(text: str, heading: str) -> str:
    """Return the section of a docstring that begins with a heading, such as "Claim".

    A section is the rest of the line after the heading, and the indented lines that follow. It is
    empty if there is none.
    """
    found = re.search(rf"^{heading}:? +(.+(?:\n +.+)*)", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def shipped() -> Path:
    """Return the folder of the experiments that come with toymodels."""
    package = Path(__file__).parent.parent
    installed = package / "_experiments"  # a wheel has them there
    return installed if installed.is_dir() else package.parent / "experiments"


def find(text: str) -> Path:
    """Return the file of an experiment, given its path or its name.

    A name is looked up as `look_up` does.

    Raises:
        ValueError: there is no such experiment; the message says which name is near.
    """
    path = Path(text)
    for file in (path, path.with_name(f"{path.name}.py") if path.name else path):
        if file.suffix == ".py" and os.path.isfile(file):
            return file
    if found := look_up(text):
        return found
    candidates = named(path.parent, Path("experiments"), shipped())
    remedy = near(path.stem, [candidate.stem for candidate in candidates], "see `toymodels list`")
    if path.suffix == ".py" or path.parent != Path():
        raise InputError(f"{path} is not a Python file here: {remedy}")
    raise InputError(f"there is no experiment {text!r}: {remedy}")


def look_up(name: str) -> Path | None:
    """Return the file of the experiment with a name, or None if there is none.

    This folder is searched first, then `experiments/`, then what comes with toymodels.
    """
    candidates = named(Path(), Path("experiments"), shipped())
    return next((path for path in candidates if path.stem == name), None)


def named(*folders: Path) -> list[Path]:
    """Return the Python files of some folders; a folder that is missing has none."""
    return [path for folder in folders for path in sorted(folder.glob("[!._]*.py"))]


def near(word: str, words: Collection[str], otherwise: str) -> str:
    """Return a question with the nearest of some words, or `otherwise` if none is near."""
    found = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {found[0]}?" if found else otherwise


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        raise InputError(f"{path}{where} is not Python: {error.msg}") from error
    except ValueError as error:  # null bytes
        raise InputError(f"{path} is not Python: {error}") from error
