"""Toy models of superposition in JAX.

    SparseUniform, ...           distributions of features
    ReLUOutput, ...              models of ONE example
    Task, Recipe, train, fit     what is learned, and training as a pure function of a key
    sweep                        a function of one model over labelled axes and seeds
    apply, best_of, params       from the results of a sweep back to its models
    theory                       exact losses, optima and other closed forms
    analysis                     measurements of one model
    interventions, record        changes of activations, and their effects
    circuits                     a model as a graph, and which of its edges matter
    fit_autoencoder              sparse autoencoders, transcoders and crosscoders
    score_method                 how well a method reads features
    explore, plotting            a page on which you walk through a sweep, and figures
    near, paper, ...             claims of figures

The table of contents is `__init__.pyi`. Names load on first use, so that `toymodels --help` does
not wait for JAX.
"""

import difflib
from typing import Any

import lazy_loader

from toymodels.engine import xla_flags
from toymodels.engine.garbage import no_garbage_collection

__version__ = "0.1.0"

xla_flags.add()  # before JAX starts
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_load = no_garbage_collection()(_load)


def __getattr__(name: str) -> Any:
    if name in __all__ or name.startswith("_"):
        return _load(name)
    close = difflib.get_close_matches(name, __all__, n=1)
    hint = f": did you mean {close[0]!r}?" if close else "; help(toymodels) lists what there is"
    raise AttributeError(f"toymodels has no {name!r}{hint}")
