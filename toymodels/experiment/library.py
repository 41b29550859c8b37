"""Where experiments are: their files, by path or by name, read without running them."""

import ast
import difflib
import os
from collections.abc import Collection
from pathlib import Path

from toymodels.errors import InputError


def bound_names(path: Path) -> set[str]:
    """The names that a Python file defines, read without running it.

    Raises:
        ValueError: no such file, or it is not Python.
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


def title(path: Path) -> str:
    """The first line of a file's docstring, read without running it.

    Raises:
        ValueError: no such file, or it is not Python.
    """
    return (ast.get_docstring(_parsed(path)) or "").partition("\n")[0]


def shipped() -> Path:
    """The folder of the experiments that come with toymodels."""
    package = Path(__file__).parent.parent
    installed = package / "_experiments"  # where a wheel has them
    return installed if installed.is_dir() else package.parent / "experiments"


def find(text: str) -> Path:
    """The file of an experiment, from its path or its name.

    A name is sought in this folder, in `experiments/`, and among those that come with toymodels.

    Raises:
        ValueError: there is none; the message says what is near.
    """
    path = Path(text)
    for file in (path, path.with_name(f"{path.name}.py") if path.name else path):
        if file.suffix == ".py" and os.path.isfile(file):
            return file
    candidates = named(path.parent, Path("experiments"), shipped())
    for candidate in candidates:
        if candidate.stem == text:
            return candidate
    remedy = near(path.stem, [candidate.stem for candidate in candidates], "see `toymodels list`")
    if path.suffix == ".py" or path.parent != Path():
        raise InputError(f"{path} is not a Python file here: {remedy}")
    raise InputError(f"there is no experiment {text!r}: {remedy}")


def named(*folders: Path) -> list[Path]:
    """The Python files of some folders; a folder that is missing has none."""
    return [path for folder in folders for path in sorted(folder.glob("[!._]*.py"))]


def near(word: str, words: Collection[str], otherwise: str) -> str:
    """A question with the nearest of some words, or something else if none is near."""
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
