r"""Universal AND: neurons that read random subsets of the inputs compute the AND of every pair.

Of $n$ inputs, $s$ are 1 and the others are 0. Neuron $j$ gives each input the weight 1 with
probability $p$, its *subset* $\Gamma_j$, and else the weight $w$, all independently:

$$h_j = \mathrm{ReLU}\Bigl(\sum_{i \in \Gamma_j} x_i + w \sum_{i \notin \Gamma_j} x_i + b\Bigr).$$

The construction of Hänni et al. has $w = 0$ and $b = -1$; `signs` are $p = 1/2$, $w = -1$, $b = 0$.
Two linear read-outs of the AND of inputs $k$ and $l$ are compared.

The *mean* read-out is the mean of $h_j$ over the neurons with $k, l \in \Gamma_j$. The *contrast*
weights all neurons by $c_j = ([k \in \Gamma_j] - p)([l \in \Gamma_j] - p) / (p (1 - p))^2$ and
averages $c_j (h_j - E h)$ over the $d$ neurons. If $k$ or $l$ is 0, its place in $\Gamma_j$ is
independent of $h_j$, so the contrast has the mean 0 exactly, for every $s$, $p$, $w$ and $b$.

All moments are over random subsets. They depend on how many inputs of the pair $k, l$ are 1, which
is the number `pair` of 0, 1 or 2. The error of a read-out is its mean squared error over the three
values of `pair`, each with the weight 1/3, after the best scale and offset: 1/18 for the best
linear function of the inputs.

Universal AND is one function. *Chosen* ANDs are many: a network is told which pair belongs to which
output. So it must hold as many bits as it takes to tell the choices apart, `bits_of_choice`, and
`fewest_neurons` follows.

References:
    Hänni et al. (2024), "Mathematical Models of Computation in Superposition". The contrast and the
    errors are derived here.
    Adler and Shavit (2024), "On the Complexity of Neural Computation in Superposition": the
    counting argument, with the constants of one matrix worked out here.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special, stats

from toymodels import checks
from toymodels.errors import InputError

__all__ = [
    "LINEAR_ERROR",
    "Moments",
    "Neurons",
    "bits_of_choice",
    "contrast",
    "error",
    "error_rates",
    "fewest_neurons",
    "mean_readout",
    "signs",
    "subsets",
]

LINEAR_ERROR = 1 / 18
r"""The error of the best linear function of the inputs, $(x_k + x_l)/2$ plus a constant."""


class Neurons(NamedTuple):
    """A distribution of random neurons.

    Attributes:
        share: the probability $p$ in (0, 1) that an input is in the subset of a neuron.
        other: the weight $w$ of the inputs outside the subset.
        bias: the bias $b$.
    """

    share: float
    other: float
    bias: float


def subsets(share: float) -> Neurons:
    r"""Return the neurons $\mathrm{ReLU}(\sum_{i \in \Gamma} x_i - 1)$ of the construction."""
    return Neurons(share, 0.0, -1.0)


def signs() -> Neurons:
    r"""Return the neurons $\mathrm{ReLU}(\sum_i \sigma_i x_i)$ with random signs $\sigma_i$."""
    return Neurons(0.5, -1.0, 0.0)


class Moments(NamedTuple):
    """The mean and the variance of a read-out over random neurons.

    Attributes:
        mean: the mean if 0, 1 and 2 inputs of the pair are 1.
        variance: the variance in these three cases.
    """

    mean: Float[np.ndarray, "3"]
    variance: Float[np.ndarray, "3"]


def mean_readout(neurons: Neurons, active: int, width: int) -> Moments:
    r"""Return the moments of the mean of $h_j$ over the neurons that have both inputs.

    Their number $N$ is binomial. Given $N \ge 1$ the variance is
    $\operatorname{Var}(h) E[1/N \mid N \ge 1]$; without such a neuron the read-out is 0. For the
    subsets of the construction the means are $sp - 1 + (1-p)^s$, $(s-1) p$ and $1 + (s-2) p$, times
    $P(N \ge 1)$.

    Args:
        neurons: the distribution of the neurons.
        active: the number $s$ of inputs that are 1, at least 2.
        width: the number $d$ of neurons.
    """
    _check(neurons, active, width)
    number = np.arange(1, width + 1)
    chance = stats.binom.pmf(number, width, neurons.share**2)
    some, inverse = chance.sum(), (chance / number).sum()  # P(N >= 1), and the mean of 1/N there
    means, variances = np.zeros(3), np.zeros(3)
    for pair in range(3):
        values, chances = _activations(neurons, active, pair, read=pair)
        mean = chances @ values
        means[pair] = some * mean
        within = inverse * (chances @ (values - mean) ** 2)
        variances[pair] = within + some * (1 - some) * mean**2
    return Moments(means, variances)


def contrast(neurons: Neurons, active: int, width: int) -> Moments:
    r"""Return the moments of the contrast, $\frac1d \sum_j c_j (h_j - E h)$.

    The mean is 0 unless both inputs are 1. The variance is
    $(E c^2 (h - E h)^2 - (E c h)^2) / d$.

    Args:
        neurons: the distribution of the neurons.
        active: the number $s$ of inputs that are 1, at least 2.
        width: the number $d$ of neurons.
    """
    _check(neurons, active, width)
    share, centre = neurons.share, mean_activation(neurons, active)
    first, second = np.zeros(3), np.zeros(3)
    for pair, members in itertools.product(range(3), itertools.product((0, 1), repeat=2)):
        read = sum(members[:pair])  # the first `pair` inputs of the pair are 1
        values, chances = _activations(neurons, active, pair, read)
        weight = np.prod([(member - share) for member in members]) / (share * (1 - share)) ** 2
        chance = np.prod([share if member else 1 - share for member in members])
        first[pair] += chance * weight * (chances @ values)
        second[pair] += chance * weight**2 * (chances @ (values - centre) ** 2)
    return Moments(first, (second - first**2) / width)


def mean_activation(neurons: Neurons, active: int) -> float:
    """Return the mean of a neuron over random subsets, which does not depend on the inputs."""
    values, chances = _activations(neurons, active, 0, 0)
    return float(chances @ values)


def error(moments: Moments) -> float:
    r"""Return the mean squared error over the three cases after the best scale and offset.

    With targets $t = (0, 0, 1)$, means $m$ and variances $v$ it is
    $\operatorname{Var} t - \operatorname{Cov}(m, t)^2 / (\operatorname{Var} m + \bar v)$, where all
    three cases have the weight 1/3.

    Returns:
        A number from 0 to 2/9, which is the error of a constant.
    """
    target = np.array([0.0, 0.0, 1.0])
    mean = moments.mean - np.mean(moments.mean)
    covariance = np.mean(mean * target)
    return float(np.var(target) - covariance**2 / np.mean(mean**2 + moments.variance))


def error_rates(share: float, active: int, width: int) -> Float[np.ndarray, "3"]:
    r"""Return how often the mean read-out of `subsets` is on the wrong side of its threshold.

    The threshold $(s - 3/2) p + 1/2$ lies halfway between the means of one and of two inputs that
    are 1. The sum over $N$ neurons has the $N$-fold convolution of the distribution of $h$, so the
    probability is exact up to rounding of about 1e-16. Without a neuron that has both inputs the
    read-out is 0.

    Args:
        share: the probability $p$ in (0, 1) that a neuron reads an input.
        active: the number $s$ of inputs that are 1, at least 2.
        width: the number $d$ of neurons.

    Returns:
        The probability if 0, 1 and 2 inputs of the pair are 1.
    """
    neurons = subsets(share)
    _check(neurons, active, width)
    threshold = (active - 1.5) * share + 0.5
    chance_of_number = stats.binom.pmf(np.arange(width + 1), width, share**2)
    numbers = np.flatnonzero(chance_of_number > 1e-16)
    size = 1 << int((numbers[-1] + 1) * active).bit_length()
    sums = np.arange(size)
    wrong = np.zeros(3)
    for pair in range(3):
        values, chances = _activations(neurons, active, pair, read=pair)
        spectrum = np.fft.rfft(np.bincount(values.astype(int), chances, minlength=size))
        for number in numbers:
            total = np.fft.irfft(spectrum**number, size)
            above = sums > threshold * number
            share_wrong = total[above if pair < 2 else ~above].sum()
            wrong[pair] += chance_of_number[number] * max(share_wrong, 0.0)
    return wrong


def bits_of_choice(inputs: int, ands: int) -> float:
    r"""Return how many bits tell apart all lists of different pairs of inputs, one for each AND.

    With $N = n (n - 1) / 2$ pairs and $m$ ANDs there are $N! / (N - m)!$ lists, and each is another
    function of the inputs. For all pairs the bits are $\log_2 N! \approx N \log_2 (N / e)$.

    Args:
        inputs: the number $n$ of inputs, at least 2.
        ands: the number $m$ of ANDs, from 1 to $N$.
    """
    checks.count("inputs", inputs, minimum=2)
    checks.count("ands", ands)
    pairs = inputs * (inputs - 1) // 2
    if ands > pairs:
        raise InputError(
            f"ands is {ands}: {inputs} inputs have {pairs} different pairs: give fewer"
        )
    lists = special.gammaln(pairs + 1.0) - special.gammaln(pairs - ands + 1.0)
    return float(lists / np.log(2))


def fewest_neurons(inputs: int, ands: int, *, bits: int) -> int:
    r"""Return the fewest neurons that can compute chosen ANDs in superposition, by counting.

    A layer of $d$ neurons reads $d$ dimensions, in which the inputs are in superposition. Its $d^2$
    weights and $d$ biases of $k$ bits alone depend on the choice; embedding and read-out are fixed.
    A layer computes at most one of the functions, so

    $$k\, d\, (d + 1) \ge \log_2 \frac{N!}{(N - m)!}, \qquad N = \frac{n (n - 1)}2,$$

    which grows as $\sqrt{m \log m}$ for $m$ in proportion to $N$. It is a bound: nothing says that
    as few neurons suffice.

    Args:
        inputs: the number $n$ of inputs, at least 2.
        ands: the number $m$ of ANDs, from 1 to the number of pairs.
        bits: the bits $k$ of a weight, such as 32.
    """
    checks.count("bits", bits)
    numbers = bits_of_choice(inputs, ands) / bits
    # From the root of d (d + 1) = numbers, without the error of a rounded root.
    neurons = max(1, int(np.sqrt(numbers)) - 1)
    while neurons * (neurons + 1) < numbers:
        neurons += 1
    return neurons


def _activations(
    neurons: Neurons, active: int, pair: int, read: int
) -> tuple[Float[np.ndarray, " counts"], Float[np.ndarray, " counts"]]:
    """Return the values of a neuron that has `read` of `pair` inputs that are 1, and their chances.

    The other `active - pair` inputs that are 1 are in its subset independently.
    """
    others = active - pair
    count = np.arange(others + 1)
    inside = read + count
    values = np.maximum(inside + neurons.other * (active - inside) + neurons.bias, 0.0)
    return values, stats.binom.pmf(count, others, neurons.share)


def _check(neurons: Neurons, active: int, width: int) -> None:
    checks.count("active", active, minimum=2)
    checks.count("width", width)
    if not 0 < neurons.share < 1:
        raise InputError(
            f"share is {neurons.share:g}: give a probability between 0 and 1, so that neurons "
            "differ"
        )
