from . import analysis, plotting, theory
from .compiling import jit
from .experiment import Bound, Claim
from .features import (
    AnticorrelatedSets,
    Binary,
    CorrelatedSets,
    Features,
    SignedSparseUniform,
    SparseUniform,
)
from .fuse import explain, value_and_grad
from .models import (
    LinearOutput,
    ReLUHidden,
    ReLUOutput,
    Site,
    TwoLayer,
    activations,
    intervene,
    notebook_initializer,
)
from .store import Store
from .sweeps import SweepError, SweepInterrupted, best_of, sweep
from .tasks import Task, geometric_importance
from .training import (
    Fitted,
    History,
    Trained,
    evaluate,
    fit,
    log_spaced,
    task_loss,
    train,
)

__all__ = [
    "AnticorrelatedSets",
    "Binary",
    "Bound",
    "Claim",
    "CorrelatedSets",
    "Features",
    "Fitted",
    "History",
    "LinearOutput",
    "ReLUHidden",
    "ReLUOutput",
    "SignedSparseUniform",
    "Site",
    "SparseUniform",
    "Store",
    "SweepError",
    "SweepInterrupted",
    "Task",
    "Trained",
    "TwoLayer",
    "activations",
    "analysis",
    "best_of",
    "evaluate",
    "explain",
    "fit",
    "geometric_importance",
    "intervene",
    "jit",
    "log_spaced",
    "notebook_initializer",
    "plotting",
    "sweep",
    "task_loss",
    "theory",
    "train",
    "value_and_grad",
]
