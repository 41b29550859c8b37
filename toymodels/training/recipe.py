"""The usual training of toy models: Adam with a learning rate that falls along a cosine.

The `Config` of an experiment holds a `Recipe` as one field, and the command line shows the fields
of the recipe as flags.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import optax
from jaxtyping import Array, Key

from toymodels import checks
from toymodels.tasks import Task
from toymodels.training.train import Trained, train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    r"""Adam whose learning rate falls from `learning_rate` to 0 along half a cosine.

    The rate of step $t$ is $\eta_t = \frac{\eta}{2}\left(1 + \cos \frac{\pi t}{T}\right)$ with
    $T$ = `steps`.

    Attributes:
        steps: the number of updates.
        batch: the number of examples of each update.
        learning_rate: the learning rate $\eta$ of the first step.
    """

    steps: int
    batch: int
    learning_rate: float

    def optimizer(self, *, weight_decay: Any = 0.0) -> optax.GradientTransformation:
        """Return the optimizer: Adam, or AdamW if there is a weight decay."""
        checks.count("steps", self.steps)
        rate = optax.cosine_decay_schedule(self.learning_rate, self.steps)
        if isinstance(weight_decay, int | float) and weight_decay == 0:
            return optax.adam(rate)
        return optax.adamw(rate, weight_decay=weight_decay)

    def settings(self, *, weight_decay: Any = 0.0) -> dict[str, Any]:
        """Return the optimizer, the steps and the batch, as arguments by name.

        They are those of `fit`, of `fit_autoencoder` and of `train`:
        `fit(key, params, loss, sample, **recipe.settings())`.
        """
        optimizer = self.optimizer(weight_decay=weight_decay)
        return {"optimizer": optimizer, "steps": self.steps, "batch": self.batch}

    def train(
        self,
        key: Key[Array, ""],
        model: nn.Module,
        task: Task,
        *,
        weight_decay: Any = 0.0,
        points: int = 100,
        snapshots: Sequence[int] = (),
        evaluation: int = 65_536,
        key_evaluation: Key[Array, ""] | None = None,
    ) -> Trained:
        """Train one model on one task as `toymodels.train` does.

        Args:
            key: decides the start of the model and the training data.
            model: a Linen module of ONE example.
            task: features, target and importance.
            weight_decay: the decoupled weight decay of AdamW.
            points: the number of points of the loss curve that are kept at most.
            snapshots: increasing numbers of updates after which the parameters are kept.
            evaluation: the number of fresh examples of the final loss; 0 leaves it out.
            key_evaluation: decides those examples; by default they are common to all runs.
        """
        return train(
            key,
            model,
            task,
            **self.settings(weight_decay=weight_decay),
            points=points,
            snapshots=snapshots,
            evaluation=evaluation,
            key_evaluation=key_evaluation,
        )
