"""The architecture: which room of the package may use which, and what an import costs.

A room is a file or a folder directly inside `toymodels/`.
"""

import ast
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "toymodels"

# The rooms from the ground up, and those that each room may import. A room imports only rooms that
# stand above it in this table. Change the table when the design changes.
ROOMS = {
    # the ground: what to raise, and how numbers are checked
    "errors": set(),
    "checks": {"errors"},
    # how a function of one model becomes one fast program; it knows no model
    "engine": {"checks", "errors"},
    # what is trained, and on what
    "sites": {"checks", "errors"},
    "models": {"checks", "errors", "sites"},
    "features": {"checks", "errors", "sites"},
    "tasks": {"checks", "errors", "features"},
    "training": {"checks", "engine", "errors", "features", "models", "sites", "tasks"},
    "autoencoders": {"checks", "engine", "errors", "features", "models", "sites", "training"},
    # what changes inside a model, and what happens then
    "interventions": {"checks", "errors", "features", "sites", "training"},
    # any function over labelled axes and seeds; it knows neither models nor training
    "sweeps": {"checks", "engine", "errors"},
    # closed forms, and measurements of trained models
    "theory": {"checks", "engine", "errors"},
    "analysis": {"checks", "engine", "errors", "sites", "theory"},
    # which edges of a model compute its output
    "circuits": {"checks", "errors", "models", "sites", "training"},
    # how well a method reads models whose features are known
    "scoring": {"analysis", "checks", "errors"}
    | {"features", "models", "sweeps", "tasks", "training"},
    # the paper's side: from a file to results, checked claims and a figure
    "plotting": {"analysis", "checks", "errors", "theory"},
    "experiment": {"engine", "errors", "plotting", "sweeps"},
    "explorer": {"analysis", "errors", "experiment", "sweeps", "theory"},
    "cli": {"errors", "experiment", "explorer", "sweeps"},
}

# Parts of a room that stay free of the rest of the package.
APART = {
    "sweeps.store": {"errors"},
    "experiment.files": {"errors"},
}


def modules():
    """Every module of the package by its dotted name; a folder has the name of its `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py*")):
        if path.suffix in (".py", ".pyi"):
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            found.setdefault(name, []).append(path)
    return found


MODULES = modules()


def imported_by(name):
    """The modules of the package that a module imports anywhere, inside functions, too."""
    for path in MODULES[name]:
        folder = path.parent.relative_to(PACKAGE.parent).parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                full = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = folder[: len(folder) - node.level + 1] if node.level else ()
                source = ".".join([*start, *([node.module] if node.module else [])])
                full = [f"{source}.{alias.name}" for alias in node.names]
            else:
                continue
            for target in full:
                if target.split(".")[0] == PACKAGE.name:
                    yield _module(target.removeprefix(PACKAGE.name).lstrip("."))


def _module(target):
    """The module that defines what `target` names, such as `engine.fuse` for its function."""
    while target not in MODULES:
        target = target.rpartition(".")[0]
    return target


def room(name):
    return name.split(".")[0]


def inside(part):
    return [name for name in MODULES if name == part or name.startswith(f"{part}.")]


def test_the_table_has_every_room_and_at_most_nineteen():
    assert {room(name) for name in MODULES} - {""} == ROOMS.keys()
    assert len(ROOMS) <= 19


def test_a_room_uses_only_rooms_that_stand_above_it():
    seen = set()
    for name, uses in ROOMS.items():
        assert uses <= seen, name
        seen.add(name)


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_what_the_table_allows(name):
    # The face of the package, "", imports all rooms: only the command, and the file that a new
    # experiment starts from, use it.
    face = {"cli", "experiment.skeleton"}
    for module in inside(name):
        found = {room(target) for target in imported_by(module)} - {name}
        assert found <= ROOMS[name] | ({""} if module in face else set()), module


@pytest.mark.parametrize("part", APART)
def test_a_part_stays_free_of_the_rest(part):
    own = inside(part)
    assert own
    for module in own:
        assert set(imported_by(module)) - {*own} <= APART[part], module


def test_no_module_waits_for_itself():
    """The imports have no circle, and imports inside functions count."""
    graph = {name: set(imported_by(name)) - {name} for name in MODULES}
    while leaves := {name for name, targets in graph.items() if not targets}:
        graph = {name: targets - leaves for name, targets in graph.items() if name not in leaves}
    assert not graph


def test_experiments_do_not_import_each_other():
    paths = sorted((ROOT / "experiments").rglob("*.py"))
    names = {path.stem for path in paths}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            source = str(getattr(node, "module", None))
            if source not in ("None", "experiments"):
                imported = {source}
            else:
                imported = {alias.name.removeprefix("experiments.") for alias in node.names}
            assert not names & imported, path


def test_matplotlib_is_imported_in_one_room():
    users = {room(name) for name in MODULES if "matplotlib" in _libraries(name)}
    assert users == {"plotting"}


def _libraries(name):
    for path in MODULES[name]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield str(node.module).split(".")[0]


def test_the_command_answers_without_loading_jax():
    program = """
import sys
from toymodels import cli
try:
    cli.main(["--help"])
except SystemExit:
    cli.main(["list"])
print([name for name in ("jax", "xarray", "matplotlib") if name in sys.modules])
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert finished.stdout.splitlines()[-1] == "[]"


def test_the_table_of_contents_names_what_exists():
    import toymodels

    for name in toymodels.__all__:
        thing = getattr(toymodels, name)
        alias = typing.get_origin(thing) is not None  # Python keeps no docstring of it
        assert alias or thing.__doc__, name


def test_the_tests_refuse_the_package_of_another_checkout(tmp_path):
    (tmp_path / "toymodels").mkdir()
    (tmp_path / "toymodels" / "__init__.py").touch()
    (tmp_path / "pyproject.toml").touch()
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", __file__],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert finished.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"of another checkout, {tmp_path}: set PYTHONPATH={ROOT}" in finished.stderr
