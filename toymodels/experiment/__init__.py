"""Experiments: a file becomes results, checked claims and a figure.

command    the command line of one experiment
loading    read an experiment file
library    find experiment files by path or by name
skeleton   the file that `toymodels new` writes
flags      a `Config` from the flags of the command line
runs       run an experiment, and redraw it from saved results
claims     what a figure claims
saving     results, claims and figures as files
times      the time of a run, also over several calls with one store
files      write a file whole or not at all
messages   what commands say on standard error
many       many experiments, each in a process of its own
pages      the pages of a folder of figures
listing    the table of experiments that `toymodels list` prints
"""

import lazy_loader

from toymodels.engine.garbage import no_garbage_collection

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = no_garbage_collection()(__getattr__)
