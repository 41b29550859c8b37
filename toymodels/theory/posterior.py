r"""The free energy of phases of a posterior, and the number of examples at which two phases cross.

With $n$ examples, the posterior prefers the phase of the lowest free energy
$F = n H / (2 \sigma^2) + \lambda \log n$: few examples favour simple phases, with a small learning
coefficient $\lambda$, and many favour accurate ones, with a small potential $H$.

References:
    Watanabe (2009), "Algebraic Geometry and Statistical Learning Theory".
    Chen, Lau, Mendel, Wei and Murfet (2023), "Dynamical versus Bayesian Phase Transitions in a Toy
    Model of Superposition".
"""

import numpy as np
from jaxtyping import Float
from scipy import special

from toymodels import checks
from toymodels.errors import InputError


def free_energy(
    potential: Float[np.ndarray, "*cells"] | float,
    coefficient: Float[np.ndarray, "*cells"] | float,
    num_examples: Float[np.ndarray, "*cells"] | float,
    *,
    noise_variance: float,
) -> Float[np.ndarray, "*cells"]:
    r"""Return the free energy of a phase, $F = n H / (2 \sigma^2) + \lambda \log n$.

    The likelihood is $p(x \mid w) \propto \exp(-\lVert x - f_w(x) \rVert^2 / (2 \sigma^2))$: its
    negative logarithm is half the squared error for $\sigma^2 = 1$, and the squared error for
    $\sigma^2 = 1/2$. Terms of order 1 are left out: the number of copies of the phase, the volume
    of its flat directions, and the prior.

    Args:
        potential: $H$.
        coefficient: $\lambda$.
        num_examples: $n \ge 1$.
        noise_variance: $\sigma^2 > 0$.
    """
    _check_noise(noise_variance)
    checks.interval("num_examples", num_examples, low=1, remedy="it is the size of a data set")
    examples = np.asarray(num_examples, np.float64)
    return examples * potential / (2 * noise_variance) + coefficient * np.log(examples)


def crossover(
    potentials: tuple[float, float], coefficients: tuple[float, float], *, noise_variance: float
) -> float:
    r"""Return the number of examples from which the posterior prefers the second of two phases.

    It is the larger root of $n = a \log n$ with $a = 2 \sigma^2 \Delta\lambda / \Delta H$, that is
    $n = -a W_{-1}(-1/a)$ with the lower branch of Lambert's function.

    Args:
        potentials: $H$ of the simpler and of the more accurate phase: decreasing.
        coefficients: their $\lambda$: not decreasing.
        noise_variance: $\sigma^2 > 0$, as in `free_energy`.

    Returns:
        A number above $e$, or 1 if the second phase is preferred for every $n$, for $a \le e$.

    Raises:
        ValueError: the potentials do not decrease, or the coefficients do.
    """
    _check_noise(noise_variance)
    gain, price = potentials[0] - potentials[1], coefficients[1] - coefficients[0]
    if not (gain > 0 and price >= 0):
        raise InputError(
            f"potentials {potentials} and coefficients {coefficients} do not cross: give first the "
            "phase of the higher potential and of the lower coefficient"
        )
    ratio = 2 * noise_variance * price / gain
    if ratio <= np.e:
        return 1.0
    return float(-ratio * special.lambertw(-1 / ratio, -1).real)


def _check_noise(noise_variance: float) -> None:
    checks.interval(
        "noise variance", noise_variance, low=0, open_low=True, remedy="it is that of the outputs"
    )
