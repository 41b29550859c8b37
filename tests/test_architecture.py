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
    "engine.blas": set(),
    "engine.interpreter": set(),
    "engine.decompositions": {"engine.interpreter"},
    "engine.devices": set(),
    "engine.compiling": {"engine.decompositions"},
    "engine.elements": set(),
    "engine.choices": set(),
    "engine.columns": {"engine.elements"},
    "engine.fuse": {"engine.choices", "engine.columns", "engine.draws", "engine.elements"},
    "engine.keys": {"engine.interpreter"},
    "engine.draws": set(),
    "features.base": {"checks", "errors"},
    "features.independent": {"checks", "features.base"},
    "features.sets": {"checks", "features.base"},
    "features.hierarchy": {"checks", "errors", "features.base"},
    "features.copula": {"checks", "features.base"},
    "features.circles": {"features.base"},
    "features.finite": {"checks", "errors"},
    "features.activations": {"errors", "features.base", "sites"},
    "tasks": {"checks", "errors", "features.base"},
    "models": {"checks", "errors", "sites"},
    "engine.marks": set(),
    "training.descent": {
        "checks",
        "engine.draws",
        "engine.fuse",
        "engine.keys",
        "engine.marks",
        "errors",
    },
    "training.recipe": {"tasks", "training.train"},
    "training.train": {
        "checks",
        "engine.draws",
        "engine.fuse",
        "engine.keys",
        "engine.sums",
        "errors",
        "features.base",
        "models",
        "sites",
        "tasks",
        "training.descent",
    },
    "engine.sums": set(),
    "autoencoders.base": {"checks", "sites"},
    "autoencoders.penalties": {"autoencoders.base", "checks", "errors", "sites"},
    "autoencoders.top_k": {"autoencoders.base", "checks", "errors", "features.base", "sites"},
    "autoencoders.revival": {
        "autoencoders.base",
        "autoencoders.top_k",
        "engine.keys",
        "errors",
        "features.base",
        "models",
        "training.descent",
    },
    "autoencoders.fitting": {
        "autoencoders.base",
        "autoencoders.revival",
        "autoencoders.top_k",
        "checks",
        "engine.fuse",
        "engine.keys",
        "errors",
        "features.base",
        "models",
        "sites",
        "training.descent",
    },
    "sweeps.blocks": {
        "engine.blas",
        "engine.compiling",
        "engine.decompositions",
        "engine.devices",
        "engine.keys",
        "errors",
    },
    "sweeps.grids": {"errors"},
    "sweeps.progress": set(),
    "sweeps.datasets": {"errors", "sweeps.grids"},
    "sweeps.store.rows": {"errors"},
    "sweeps.store.salvage": {"sweeps.store.rows"},
    "sweeps.store.store": {"errors", "sweeps.store.rows", "sweeps.store.salvage"},
    "engine.programs": {"engine.decompositions"},
    "sweeps.failures": set(),
    "sweeps.cells": {
        "checks",
        "engine.marks",
        "engine.programs",
        "errors",
        "sweeps.blocks",
        "sweeps.datasets",
        "sweeps.failures",
        "sweeps.grids",
    },
    "sweeps.sweep": {
        "checks",
        "errors",
        "sweeps.blocks",
        "sweeps.cells",
        "sweeps.datasets",
        "sweeps.grids",
        "sweeps.progress",
        "sweeps.store.rows",
        "sweeps.store.store",
    },
    "sweeps.results": {"engine.decompositions", "errors", "sweeps.datasets"},
    "theory.boxes": set(),
    "theory.precision": set(),
    "theory.loss": {"checks", "errors", "theory.boxes", "theory.precision"},
    "theory.correlated": {"checks", "errors", "theory.loss", "theory.precision"},
    "theory.estimates": {"checks", "theory.loss", "theory.precision"},
    "theory.bounds": {"checks", "errors"},
    "theory.frames": set(),
    "theory.minima": {"checks", "engine.compiling", "errors", "theory.frames", "theory.loss"},
    "theory.phases": {"checks", "errors"},
    "theory.capacity": {"checks", "errors"},
    "theory.persian_rug": {"checks", "errors", "theory.precision"},
    "theory.polytopes": {"checks", "engine.compiling", "errors", "theory.frames", "theory.loss"},
    "theory.k_gons": {"checks", "errors"},
    "theory.dictionaries": {"checks", "errors"},
    "theory.memorisation": {"checks"},
    "analysis.inputs": {"errors"},
    "analysis.units": set(),
    "analysis.geometry": {"analysis.inputs", "analysis.units", "checks"},
    "analysis.learning_coefficient": {"analysis.inputs", "checks", "engine.sums", "errors"},
    "analysis.superposition": {
        "analysis.geometry",
        "analysis.inputs",
        "analysis.units",
        "checks",
        "theory.bounds",
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
        "checks",
        "errors",
        "theory.frames",
        "theory.polytopes",
    },
    "plotting": {"errors"},
    "experiment.files": {"errors"},
    "experiment.library": {"errors"},
    "experiment.claims": {"errors", "experiment.files"},
    "experiment.loading": {"cli", "errors", "experiment.claims", "experiment.library"},
    "experiment.saving": {"errors", "experiment.claims", "experiment.files"},
    "experiment.runs": {
        "errors",
        "experiment.claims",
        "experiment.files",
        "experiment.loading",
        "experiment.saving",
        "plotting",
        "sweeps.blocks",
        "sweeps.sweep",
    },
    "experiment.flags": {"errors", "experiment.loading"},
    "cli": {
        "errors",
        "experiment.claims",
        "experiment.files",
        "experiment.flags",
        "experiment.library",
        "experiment.loading",
        "experiment.runs",
        "sweeps.store.store",
    },
    "experiment.skeleton": {"experiment.loading", "plotting"},
    "sites": {"errors"},
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
