"""The architecture: which module may import which, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "toymodels"

# Every module and all it may import of ours. Change the table when the design changes.
MAY_IMPORT = {
    "errors": set(),
    "checks": {"errors"},
    "blas": set(),
    "interpreter": set(),
    "decompositions": {"interpreter"},
    "devices": set(),
    "compiling": {"decompositions"},
    "elements": set(),
    "choices": set(),
    "columns": {"elements"},
    "fuse": {"choices", "columns", "draws", "elements"},
    "keys": {"interpreter"},
    "draws": set(),
    "features.base": {"checks", "errors"},
    "features.independent": {"features.base", "checks"},
    "features.sets": {"features.base", "checks"},
    "features.hierarchy": {"features.base", "checks", "errors"},
    "features.copula": {"features.base", "checks"},
    "features.circles": {"features.base"},
    "features.finite": {"checks", "errors"},
    "features.activations": {"features.base", "models", "errors"},
    "tasks": {"features.base", "checks", "errors"},
    "models": {"checks", "errors"},
    "marks": set(),
    "descent": {"fuse", "keys", "draws", "marks", "checks", "errors"},
    "training": {
        "fuse",
        "keys",
        "draws",
        "descent",
        "models",
        "tasks",
        "features.base",
        "checks",
        "errors",
        "sums",
    },
    "sums": set(),
    "autoencoders.base": {"models", "checks"},
    "autoencoders.penalties": {"autoencoders.base", "models", "checks", "errors"},
    "autoencoders.top_k": {"autoencoders.base", "features.base", "models", "checks", "errors"},
    "autoencoders.revival": {
        "autoencoders.base",
        "autoencoders.top_k",
        "descent",
        "features.base",
        "keys",
        "models",
        "errors",
    },
    "autoencoders.fitting": {
        "autoencoders.base",
        "autoencoders.revival",
        "autoencoders.top_k",
        "descent",
        "errors",
        "features.base",
        "fuse",
        "models",
        "checks",
        "keys",
    },
    "blocks": {"keys", "blas", "compiling", "decompositions", "devices", "errors"},
    "grids": {"errors"},
    "progress": set(),
    "datasets": {"grids", "errors"},
    "rows": {"errors"},
    "salvage": {"rows"},
    "store": {"rows", "salvage", "errors"},
    "programs": {"decompositions"},
    "failures": set(),
    "cells": {
        "blocks",
        "checks",
        "datasets",
        "failures",
        "grids",
        "marks",
        "programs",
        "errors",
    },
    "sweeps": {
        "blocks",
        "cells",
        "checks",
        "datasets",
        "grids",
        "progress",
        "rows",
        "store",
        "errors",
    },
    "results": {"datasets", "decompositions", "errors"},
    "theory.boxes": set(),
    "theory.precision": set(),
    "theory.loss": {"theory.boxes", "theory.precision", "checks", "errors"},
    "theory.correlated": {"theory.loss", "theory.precision", "checks", "errors"},
    "theory.estimates": {"theory.loss", "theory.precision", "checks"},
    "theory.bounds": {"checks", "errors"},
    "theory.frames": set(),
    "theory.minima": {"theory.loss", "theory.frames", "compiling", "checks", "errors"},
    "theory.phases": {"checks", "errors"},
    "theory.capacity": {"checks", "errors"},
    "theory.persian_rug": {"theory.precision", "checks", "errors"},
    "theory.polytopes": {"theory.loss", "theory.frames", "compiling", "checks", "errors"},
    "theory.k_gons": {"checks", "errors"},
    "theory.dictionaries": {"checks", "errors"},
    "theory.memorisation": {"checks"},
    "analysis.inputs": {"errors"},
    "analysis.units": set(),
    "analysis.geometry": {"analysis.inputs", "analysis.units", "checks"},
    "analysis.learning_coefficient": {"analysis.inputs", "checks", "errors", "sums"},
    "analysis.superposition": {
        "analysis.geometry",
        "analysis.inputs",
        "analysis.units",
        "theory.bounds",
        "checks",
    },
    "analysis.linearity": {"analysis.geometry", "analysis.inputs", "analysis.units", "checks"},
    "analysis.concepts": {"analysis.geometry", "analysis.inputs", "analysis.units", "checks"},
    "analysis.erasure": {"analysis.geometry", "analysis.inputs", "checks"},
    "analysis.irreducibility": {"analysis.inputs", "checks", "errors"},
    "analysis.neurons": {"analysis.inputs", "checks"},
    "analysis.probing": {"analysis.inputs", "analysis.units", "checks", "errors"},
    "analysis.dictionaries": {"analysis.geometry", "analysis.inputs", "analysis.units", "checks"},
    "analysis.sparse_coding": {"analysis.geometry", "analysis.inputs", "checks", "errors"},
    "analysis.baselines": {"analysis.inputs", "checks", "errors"},
    "analysis.phases": {"analysis.geometry", "analysis.inputs", "theory.phases"},
    "analysis.polytopes": {
        "analysis.inputs",
        "theory.frames",
        "theory.polytopes",
        "checks",
        "errors",
    },
    "plotting": {"errors"},
    "files": {"errors"},
    "library": {"errors"},
    "claims": {"files", "errors"},
    "experiment": {"claims", "cli", "library", "errors"},
    "saving": {"claims", "files", "errors"},
    "runs": {"blocks", "claims", "experiment", "files", "plotting", "saving", "sweeps", "errors"},
    "flags": {"experiment", "errors"},
    "cli": {"claims", "experiment", "files", "flags", "library", "runs", "store", "errors"},
    "skeleton": {"experiment", "plotting"},
}


def modules():
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }


def imported_modules(path, top_level_only=False):
    """The modules of ours that a file imports, as dotted names below the package."""
    tree = ast.parse(path.read_text())
    known = modules()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
        else:
            continue
        for name in names:
            if name.removeprefix("toymodels.") in known and name.startswith("toymodels."):
                yield name.removeprefix("toymodels.")


def test_every_module_is_in_the_table():
    assert modules().keys() == MAY_IMPORT.keys()


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_imports_point_one_way(name):
    assert set(imported_modules(modules()[name])) <= MAY_IMPORT[name]


def test_there_is_no_cycle_of_imports():
    graph = {
        name: set(imported_modules(path, top_level_only=True)) for name, path in modules().items()
    }
    while leaves := {name for name, targets in graph.items() if not targets}:
        graph = {name: targets - leaves for name, targets in graph.items() if name not in leaves}
    assert not graph


def test_experiments_do_not_import_each_other():
    folder = PACKAGE.parent / "experiments"
    names = {path.stem for path in folder.glob("*.py")}
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            source = str(getattr(node, "module", None))
            if source not in ("None", "experiments"):
                imported = {source}
            else:
                imported = {alias.name.removeprefix("experiments.") for alias in node.names}
            assert not names & imported, path


def test_matplotlib_is_imported_in_one_place():
    users = [name for name, path in modules().items() if "matplotlib" in _roots(path)]
    assert users == ["plotting"]


def test_the_command_answers_without_loading_jax():
    program = """
import sys
from toymodels import cli
try:
    cli.main(["--help"])
except SystemExit:
    cli.main(["list"])
print("jax" in sys.modules)
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert finished.stdout.splitlines()[-1] == "False"


def test_the_table_of_contents_names_what_exists():
    import toymodels

    for name in toymodels.__all__:
        assert getattr(toymodels, name).__doc__, name


def _roots(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).split(".")[0]
