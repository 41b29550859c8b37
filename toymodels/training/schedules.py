"""Learning rates over the steps of a training."""

import optax

from toymodels import checks


def constant_then_cosine(rate: float, steps: int, *, until: int) -> optax.Schedule:
    r"""Return a learning rate that is constant at first and then falls along half a cosine.

    A constant rate shows the dynamics of training, but its noise hides where they end; so the
    rate falls to 0 at the end,
    $\eta_t = \frac{\eta}{2}\left(1 + \cos \pi \frac{t - u}{T - u}\right)$ for $t \ge u$.

    Args:
        rate: the learning rate $\eta$ of the first steps.
        steps: the number of steps $T$, after which the rate is 0.
        until: the step $u$ from which on the rate falls.
    """
    checks.count("steps", steps)
    checks.count("until", until, minimum=0)
    falling = optax.cosine_decay_schedule(rate, steps - until)
    return optax.join_schedules([optax.constant_schedule(rate), falling], [until])
