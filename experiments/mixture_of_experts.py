r"""Mixtures of experts: routing has no phase change of two features, but few trained routers do it.

Claim      Two features that share one dimension change abruptly: below some importance the second
           one is ignored, and above it they are an antipodal pair. With two experts of one
           dimension and an ideal router nothing jumps, and at equal importance the loss is half of
           that of the pair.
           Fewer than one seed in ten finds this by training, even at equal importance, and none for
           a second feature that hardly matters. So the best of few seeds jumps where luck decides:
           of six it was at larger importances than of 32.
Reproduces "Sparsity and Superposition in Mixture of Experts" (2025, arXiv 2510.23671), that there
           is no discontinuous phase change. The loss of ideal routing is derived here.
Settings   The output is ReLU(g w (w . x) + b) with the weights w of the expert of the largest
           logit, and its softmax g.
Selection  The best of all seeds by loss, for both models.
Command    toymodels run experiments/mixture_of_experts.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting

MOE = tm.paper("Sparsity and Superposition in Mixture of Experts (2025, arXiv 2510.23671)")
ROUTED = tm.prediction("p^2 E min(u^2, I v^2) = p^2 (I / 3 - I^(3/2) / 6) for uniform u and v")
INTEGRAL = tm.identity("E min(u^2, I v^2) = I / 3 - I^(3/2) / 6 for uniform u and v, here sampled")
PAIR = tm.prediction("An antipodal pair of length 1 is wrong only where both features are active")
FOUND = tm.finding("found here")
COLLAPSE = "Few seeds find ideal routing, and none where the second feature hardly matters."
BIAS = "At density 0.3 the bias alone is a half of the right answer, so that the jump is smaller."
SEEN = "Ours, after a first run."
NEAR = 1.2
"""A model finds ideal routing if its loss is at most this multiple of that of ideal routing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    densities: tuple[float, ...] = (0.3, 0.1)
    importances: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
    num_seeds: int = 32
    training: tm.Recipe = tm.Recipe(steps=2500, batch=512, learning_rate=2e-2)


SMOKE = Config(
    densities=(0.3,),
    importances=(0.1, 1.0),
    num_seeds=2,
    training=tm.Recipe(steps=5, batch=8, learning_rate=1e-2),
)


def output(params, x):
    """Return the output of the chosen expert for one example."""
    logits = params["router"] @ x + params["offset"]
    chosen = jax.nn.one_hot(jnp.argmax(logits), len(logits))
    weights = chosen @ params["experts"]
    gate = chosen @ jax.nn.softmax(logits)
    return jax.nn.relu(gate * weights * (weights @ x) + params["bias"])


def run(config: Config) -> xr.Dataset:
    recipe = config.training

    def cell(key, *, experts, density, importance):
        key_weights, key_router, key_data = jax.random.split(key, 3)
        start = {
            "experts": jax.random.normal(key_weights, (experts, 2)) * 0.7,
            "router": jax.random.normal(key_router, (experts, 2)),
            "offset": jnp.zeros(experts),
            "bias": jnp.zeros(2),
        }
        weight = jnp.stack([1.0, importance])

        def loss(params, x):
            return jnp.sum(weight * (x - output(params, x)) ** 2)

        distribution = tm.SparseUniform(2, density)
        params = tm.fit(key_data, start, loss, distribution.sample, **recipe.settings()).params
        fresh = distribution.sample(jax.random.key(2022), 100_000)
        second = jax.vmap(lambda size: output(params, jnp.stack([0.0, size]))[1])
        sizes = jnp.linspace(0.05, 1, 20)
        return {
            "loss": jnp.mean(jax.vmap(loss, (None, 0))(params, fresh)),
            "answer": jnp.mean(second(sizes) / sizes),  # 1 if the second feature is kept, else 0
        }

    results = tm.sweep(
        cell,
        static={"experts": (1, 2)},
        axes={"density": config.densities, "importance": config.importances},
        num_seeds=config.num_seeds,
    )
    found = results["loss"] < NEAR * routed(results["density"], results["importance"])
    best = results["loss"].argmin("seed")
    chosen = results.isel(seed=best).drop_vars("seed", errors="ignore")
    return chosen.assign(found=found.mean("seed")).assign_attrs(num_seeds=config.num_seeds)


def routed(density, importance):
    """Return the loss if the router always chooses the feature that matters more."""
    return density**2 * (importance / 3 - importance**1.5 / 6)


def claims(results: xr.Dataset) -> tm.Claims:
    dense, mixed = results.sel(experts=1), results.sel(experts=2)
    exact = routed(results["density"], results["importance"])
    random = np.random.default_rng(0).random((2, 400_000))
    for importance in (0.2, 1.0):
        says = "The loss of two experts with ideal routing of two features that are always active "
        says += "is I / 3 - I^(3/2) / 6, where the second feature has the importance I = "
        says += f"{importance:g}."
        sampled = np.minimum(random[0] ** 2, importance * random[1] ** 2).mean()
        ours = "Ours, because it is four standard errors of a sample."
        yield tm.near(says, routed(1.0, importance), sampled, INTEGRAL, within=2e-3, threshold=ours)
    says = "Two trained experts reach the loss of ideal routing at every density and importance of "
    says += "the second feature, measured by the largest ratio."
    ours = "Ours, because the gates of a softmax are below 1."
    yield tm.near(
        says, 1, (mixed["loss"] / exact).max(), ROUTED, within=0.15, threshold=ours, note=COLLAPSE
    )
    says = "Two trained experts have about the loss of ideal routing if the second feature has an "
    says += "importance of 0.3 or more, measured by the largest relative difference."
    off = abs(mixed["loss"] / exact - 1).where(results["importance"] >= 0.3).max()
    yield tm.near(says, 0, off, FOUND, within=0.2, threshold=SEEN)
    says = "Few seeds of two experts find ideal routing, measured by the largest share, over "
    says += f"densities and importances, of seeds with less than {NEAR:g} times its loss."
    few = "Ours, after a first run, because one in five is few."
    yield tm.at_most(says, 0.2, mixed["found"].max(), FOUND, threshold=few)
    says = "No seed of two experts finds ideal routing if the second feature has an importance of "
    says += f"0.05 or less, measured by the largest share of seeds with less than {NEAR:g} times "
    says += "its loss."
    rare = mixed["found"].where(results["importance"] <= 0.05).max()
    yield tm.near(says, 0, rare, FOUND, within=0, threshold=SEEN)
    says = "One trained expert has the loss p^2 / 3 of an antipodal pair of two features of equal "
    says += "importance and density p, measured by the mean ratio over densities."
    pair = dense["loss"].isel(importance=-1) / (results["density"] ** 2 / 3)
    ours = "Ours, because the best pair is a little longer than 1, which lowers its loss by 3 %."
    yield tm.near(says, 1, pair.mean(), PAIR, within=0.1, threshold=ours)
    steps = abs(results["answer"].diff("importance")).max("importance")
    says = "As the importance of a second feature grows, one trained expert starts to answer for "
    says += "it by a jump, measured by the smallest jump between neighbouring importances over "
    says += "densities, as a share of the right answer."
    ours = "Ours, because a jump of a half is plain on this grid."
    yield tm.at_least(says, 0.5, steps.sel(experts=1).min(), MOE, threshold=ours, note=BIAS)
    says = "As the importance of a second feature grows, the answer of two trained experts for it "
    says += "does not jump, measured by the largest change between neighbouring importances, as a "
    says += "share of the right answer."
    ours = "Ours, because a jump would be near 1."
    yield tm.at_most(says, 0.25, steps.sel(experts=2).max(), MOE, threshold=ours, note=COLLAPSE)
    says = "Two trained experts answer for a second feature of any importance, measured by the "
    says += "smallest share of the right answer."
    ours = "Ours, because ideal routing has 1."
    yield tm.at_least(says, 0.7, mixed["answer"].min(), FOUND, threshold=ours, note=COLLAPSE)
    says = "Two trained experts have at most 0.6 of the loss of one if both features are equally "
    says += "important, measured by the largest ratio over densities."
    ratio = (mixed["loss"] / dense["loss"]).isel(importance=-1).max()
    ours = "Ours, because ideal routing has a half of the loss of a pair."
    yield tm.at_most(says, 0.6, ratio, FOUND, threshold=ours)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(1, 2, size=(8, 3.6))
    fine = np.geomspace(*results["importance"].values[[0, -1]], 100)
    for k, density in enumerate(results["density"].values):
        for experts, style in ((1, "s--"), (2, "o-")):
            here = results.sel(density=density, experts=experts)
            label = f"{experts} expert{'s' * (experts > 1)}, density {density:g}"
            how = {"color": f"C{k}", "ms": 4, "lw": 1.3, "label": label}
            axes[0].plot(here["importance"], here["answer"], style, **how)
            axes[1].plot(here["importance"], here["loss"] / density**2, style, **how)
    axes[1].plot(fine, routed(1.0, fine), "k:", lw=1.2, label="ideal routing (exact)")
    axes[0].set(xscale="log", ylim=(-0.05, 1.2), ylabel="answer / second feature")
    axes[0].set_title("The answer of trained experts\nrises with importance, too")
    axes[1].set(xscale="log", yscale="log", ylabel="loss / density$^2$")
    axes[1].set_title("Ideal routing has no phase change;\nfew seeds find it")
    for each in axes:
        each.set_xlabel("importance of the second feature")
        plotting.plain_ticks(each, "x", (0.02, 0.05, 0.1, 0.2, 0.5, 1))
    seeds = f"best of {results.attrs['num_seeds']} seeds"
    axes[1].legend(fontsize=7, title=seeds, title_fontsize=7)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
