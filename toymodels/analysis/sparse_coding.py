r"""Optimal sparse codes of activations for a GIVEN dictionary, a bound for every encoder.

An encoder of a sparse autoencoder is one linear map and one nonlinearity. Here the codes are
optimised for each example by itself, so for the given dictionary and penalty no encoder has a
lower loss than `lasso_codes`. The functions take ONE example; `vmap` over a batch or a sweep.

References:
    Beck and Teboulle (2009), "A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse
    Problems".
    Pati, Rezaiifar, Krishnaprasad (1993), "Orthogonal matching pursuit".
    O'Neill et al. (2024), "Compute Optimal Inference and Provable Amortisation Gap in Sparse
    Autoencoders".
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.analysis import geometry, inputs, units
from toymodels.errors import InputError

__all__ = ["lasso_codes", "pursuit_codes"]


def lasso_codes(
    dictionary: Float[Array, "hidden latents"],
    activation: Float[Array, " hidden"],
    penalty: Float[Array, ""] | float,
    *,
    iterations: int,
) -> Float[Array, " latents"]:
    r"""Return the $z \ge 0$ that minimise $\lVert h - D z \rVert^2 + \lambda \sum_l z_l$ (FISTA).

    The squared error is summed over dimensions, as in the losses of `autoencoders`. The codes are
    unique if the columns are independent. The momentum restarts when it points uphill (O'Donoghue
    and Candes, 2015), so a few hundred iterations reach the rounding of float32, or a few thousand
    if columns are almost dependent.

    Args:
        dictionary: $D$. Use columns of unit length: the penalty of a code depends on the length of
            its column.
        activation: $h$, minus the decoder's bias if there is one.
        penalty: $\lambda \ge 0$.
        iterations: the number of iterations, with one product with $D^\top D$ each.

    Returns:
        Numbers of at least 0, most of them exactly 0; a column of length 0 has the code 0. All are
        NaN if a number is not finite.
    """
    dictionary = inputs.floats("dictionary", dictionary, rank=2)
    activation = inputs.floats("activation", activation, rank=1)
    checks.same_size("dimensions", dictionary=dictionary.shape[0], activation=activation.size)
    checks.interval("penalty", penalty, low=0, remedy="it weighs the sum of the codes")
    checks.count("iterations", iterations)
    gram = dictionary.T @ dictionary
    # Half the loss has the gradient D^T D z - D^T h + penalty / 2.
    linear = dictionary.T @ activation - penalty / 2
    curvature = jnp.linalg.norm(dictionary, ord=2) ** 2
    step = jnp.where(curvature > 0, 1 / units.positive(curvature), 0.0)

    def iterate(_: Any, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        codes, ahead, time = state
        moved = jnp.maximum(0.0, ahead + step * (linear - gram @ ahead))
        restart = jnp.vdot(ahead - moved, moved - codes) > 0
        later = jnp.where(restart, 1.0, (1 + jnp.sqrt(1 + 4 * time**2)) / 2)
        momentum = jnp.where(restart, 0.0, (time - 1) / later)
        return moved, moved + momentum * (moved - codes), later

    start = jnp.zeros_like(linear)
    codes, _, _ = lax.fori_loop(0, iterations, iterate, (start, start, jnp.ones_like(linear[0])))
    return inputs.unless_missing(codes, dictionary, activation)


def pursuit_codes(
    dictionary: Float[Array, "hidden latents"], activation: Float[Array, " hidden"], *, active: int
) -> Float[Array, " latents"]:
    r"""Return codes of either sign, at most $k$ of them not 0 (orthogonal matching pursuit).

    In each of $k$ steps the column with the largest $|\cos|$ with the residual joins, and least
    squares fits all codes again. The method is greedy. It finds $k$ true columns for all values of
    their codes if $|\cos| < 1/(2k - 1)$ between any two columns; otherwise it can fail.

    Args:
        dictionary: $D$.
        activation: $h$.
        active: $k$, at most the number of dimensions or latents.

    Returns:
        At most $k$ codes that are not 0: fewer if these leave no residual. All are NaN if a number
        is not finite.

    References:
        Tropp (2004), "Greed is good: algorithmic results for sparse approximation".
    """
    dictionary = inputs.floats("dictionary", dictionary, rank=2)
    activation = inputs.floats("activation", activation, rank=1)
    checks.same_size("dimensions", dictionary=dictionary.shape[0], activation=activation.size)
    hidden, latents = dictionary.shape
    checks.count("active", active)
    if active > min(hidden, latents):
        raise InputError(
            f"active is {active} for {latents} latents in {hidden} dimensions: give at most "
            f"{min(hidden, latents)}"
        )
    lengths = geometry.feature_norms(dictionary)
    directions = geometry.unit_columns(dictionary)
    # A residual that is only rounding must not choose a column.
    negligible = 16 * jnp.finfo(activation.dtype).eps * jnp.linalg.norm(activation)

    def choose(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        chosen, residual = state
        best = jnp.arange(latents) == jnp.argmax(jnp.abs(directions.T @ residual))
        chosen = chosen | (best & (jnp.linalg.norm(residual) > negligible))
        return (chosen, activation - directions @ fitted(chosen)), None

    def fitted(chosen: Array) -> Array:
        # Columns of 0 get the code 0 from the least norm.
        return jnp.linalg.pinv(jnp.where(chosen[None, :], directions, 0.0)) @ activation

    (chosen, _), _ = lax.scan(choose, (jnp.zeros(latents, bool), activation), None, length=active)
    codes = jnp.where(chosen, fitted(chosen), 0.0)
    codes = codes / units.positive(lengths)
    return inputs.unless_missing(codes, dictionary, activation)
