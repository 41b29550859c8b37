"""The paper's side: an experiment file becomes results, checked claims and a figure.

loading    read an experiment file
library    find experiment files by path or by name
skeleton   the file that `toymodels new` writes
flags      a `Config` from the flags of the command line
runs       run an experiment, and redraw it from saved results
claims     what a figure claims, and the pages of claims
saving     results, claims and figures as files
files      write a file whole or not at all
"""

from toymodels.experiment.claims import Bound, Claim, Kind
from toymodels.experiment.loading import Experiment, flat, load, main

__all__ = ["Bound", "Claim", "Experiment", "Kind", "flat", "load", "main"]
