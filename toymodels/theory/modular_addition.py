r"""The network of largest margin for addition modulo a prime: waves whose phases add up.

A network of one hidden layer with quadratic activation and no biases adds two numbers modulo $p$.
Neuron $i$ has the vectors $u_i, v_i, w_i \in \mathbb{R}^p$, and

$$f(a, b)_c = \sum_i (u_{i,a} + v_{i,b})^2\, w_{i,c}.$$

References:
    Morwani et al. (2024), "Feature Emergence via Margin Maximization: Case Studies in Algebraic
    Tasks", Theorem 7.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.errors import InputError

__all__ = ["Adder", "critical_penalty", "least_loss", "max_margin", "max_margin_network"]


class Adder(NamedTuple):
    """The vectors of all neurons of a network of two numbers.

    Attributes:
        first: $u_i$, what each neuron reads of the first number.
        second: $v_i$, what each neuron reads of the second number.
        out: $w_i$, what each neuron writes to the logits.
    """

    first: Float[Array | np.ndarray, "*cells neurons numbers"]
    second: Float[Array | np.ndarray, "*cells neurons numbers"]
    out: Float[Array | np.ndarray, "*cells neurons numbers"]


def max_margin(modulus: int) -> float:
    r"""Return the largest margin of a network whose $L_{2,3}$ norm is 1.

    $$\gamma^* = \frac{\sqrt{2/27}}{\sqrt{p}\,(p - 1)}, \qquad
      \lVert\theta\rVert_{2,3} = \Bigl(\sum_i (\lVert u_i\rVert^2 + \lVert v_i\rVert^2 +
      \lVert w_i\rVert^2)^{3/2}\Bigr)^{1/3}.$$

    The margin is the smallest lead of the logit of $a + b \bmod p$ over another logit, for any $a$
    and $b$. No number of neurons gives more, and `max_margin_network` reaches it.

    Args:
        modulus: $p$, an odd prime.
    """
    _check(modulus)
    return (2 / 27 / modulus) ** 0.5 / (modulus - 1)


def max_margin_network(modulus: int) -> Adder:
    r"""Return a network of norm 1 that has the largest margin, with $4(p - 1)$ neurons.

    Each frequency $k = 1, \dots, (p - 1) / 2$ has eight neurons, with phases $\phi, \psi$ in
    steps of a quarter turn:

    $$u_a = \lambda \cos\bigl(\tfrac{2\pi k a}{p} + \phi\bigr), \quad
      v_b = \lambda \cos\bigl(\tfrac{2\pi k b}{p} + \psi\bigr), \quad
      w_c = \lambda \cos\bigl(\tfrac{2\pi k c}{p} + \phi + \psi\bigr).$$

    Their sum is $4 \lambda^3 \cos(2\pi k (a + b - c) / p)$: all other terms cancel.

    Args:
        modulus: $p$, an odd prime.

    Returns:
        Vectors in double precision.
    """
    _check(modulus)
    quarters = np.pi / 2 * np.arange(4)
    # A half turn of both phases gives the same neuron.
    every = itertools.product(range(1, (modulus + 1) // 2), quarters[:2], quarters)
    frequency, phi, psi = np.array(list(every)).T[:, :, None]
    angle = 2 * np.pi / modulus * frequency * np.arange(modulus)
    size = (2 / 3 / modulus) ** 0.5 / (4 * (modulus - 1)) ** (1 / 3)
    return Adder(*(size * np.cos(angle + phase) for phase in (phi, psi, phi + psi)))


def critical_penalty(modulus: int) -> float:
    r"""Return the penalty $\gamma^* (p - 1) / p$ from which on the best network is all zeros.

    See `least_loss`.

    Args:
        modulus: $p$, an odd prime.
    """
    return max_margin(modulus) * (modulus - 1) / modulus


def least_loss(modulus: int, penalty: float) -> float:
    r"""Return the smallest mean cross-entropy plus $\lambda \lVert\theta\rVert_{2,3}^3$.

    The cross-entropy is in nats, and it is averaged over all pairs of numbers. With
    $R = \lVert\theta\rVert_{2,3}^3$, the lead of the right logit, averaged over pairs and over
    wrong answers, is at most $\gamma^* R$, and cross-entropy is convex in the leads. So no network,
    of any width, is below

    $$\min_{R \ge 0} \; \ln\bigl(1 + (p - 1) e^{-\gamma^* R}\bigr) + \lambda R,$$

    and the network of largest margin, scaled, reaches it. At the optimal $R$ the wrong answers
    together have the probability $\lambda / \gamma^*$. From `critical_penalty` on, the optimal $R$
    is 0.

    Args:
        modulus: $p$, an odd prime.
        penalty: $\lambda > 0$.

    Returns:
        A number in $(0, \ln p]$.
    """
    checks.interval("penalty", penalty, low=0, open_low=True, remedy="give a positive one")
    if penalty >= critical_penalty(modulus):
        return math.log(modulus)
    wrong = penalty / max_margin(modulus)
    lead = math.log((modulus - 1) * (1 - wrong) / wrong)
    return -math.log(1 - wrong) + wrong * lead


def _check(modulus: int) -> None:
    checks.count("modulus", modulus, minimum=3)
    if any(modulus % divisor == 0 for divisor in range(2, modulus)):
        raise InputError(f"modulus is {modulus}: give an odd prime, such as 7")
