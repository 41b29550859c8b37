from .claims import Bound, Claim, Kind
from .command import main
from .loading import Experiment, flat, load

__all__ = ["Bound", "Claim", "Experiment", "Kind", "flat", "load", "main"]
