from . import analysis, plotting, theory
from .autoencoders import (
    BatchTopKAutoencoder,
    Decomposition,
    GatedAutoencoder,
    JumpReLUAutoencoder,
    MatryoshkaAutoencoder,
    ReLUAutoencoder,
    TopKAutoencoder,
    fit_autoencoder,
)
from .engine.compiling import jit
from .engine.fuse import value_and_grad
from .errors import InputError
from .experiment import Bound, Claim, Kind
from .features import (
    Activations,
    AnticorrelatedSets,
    Binary,
    Circles,
    Concepts,
    CorrelatedSets,
    Features,
    FiniteData,
    GaussianCopula,
    Hierarchy,
    SignedSparseUniform,
    SparseUniform,
    balanced_tree,
    zipf_density,
)
from .models import (
    LinearOutput,
    ReLUHidden,
    ReLUOutput,
    TwoLayer,
    notebook_initializer,
)
from .sites import Site, activations, intervene
from .sweeps.results import apply, best_of, params
from .sweeps.store.store import Store
from .sweeps.sweep import SweepError, SweepInterrupted, sweep
from .tasks import Task, geometric_importance
from .training.train import (
    Fitted,
    History,
    Trained,
    evaluate,
    explain,
    fit,
    log_spaced,
    task_loss,
    train,
)

__version__: str

__all__ = [
    "Activations",
    "AnticorrelatedSets",
    "BatchTopKAutoencoder",
    "Binary",
    "Bound",
    "Circles",
    "Claim",
    "Concepts",
    "CorrelatedSets",
    "Decomposition",
    "Features",
    "FiniteData",
    "Fitted",
    "GatedAutoencoder",
    "GaussianCopula",
    "Hierarchy",
    "History",
    "InputError",
    "JumpReLUAutoencoder",
    "Kind",
    "LinearOutput",
    "MatryoshkaAutoencoder",
    "ReLUAutoencoder",
    "ReLUHidden",
    "ReLUOutput",
    "SignedSparseUniform",
    "Site",
    "SparseUniform",
    "Store",
    "SweepError",
    "SweepInterrupted",
    "Task",
    "TopKAutoencoder",
    "Trained",
    "TwoLayer",
    "activations",
    "analysis",
    "apply",
    "balanced_tree",
    "best_of",
    "evaluate",
    "explain",
    "fit",
    "fit_autoencoder",
    "geometric_importance",
    "intervene",
    "jit",
    "log_spaced",
    "notebook_initializer",
    "params",
    "plotting",
    "sweep",
    "task_loss",
    "theory",
    "train",
    "value_and_grad",
    "zipf_density",
]
