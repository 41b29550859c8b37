"""Parameter decomposition of 40 features in ten dimensions: more subcomponents find more features.

Claim      Stochastic parameter decomposition of a model of 40 features in ten dimensions fails with
           hardly more subcomponents than features, and comes nearer to one subcomponent for each
           feature the more of them it starts with, after the same number of updates. Most of them
           vanish: about as many as there are features remain. Unlike in the plane, the mean of the
           maximal cosines shows the failures.
Reproduces No figure. Bushnaq, Braun and Sharkey (2025), "Stochastic Parameter Decomposition",
           report the scores of one such model with 200 subcomponents.
Settings   ReLU models trained at density 0.05, and inputs of that density with at least one active
           feature. The authors make more updates, of 8,192 inputs each, with 16 gate units, and
           penalise the squares of the importances with the factor 1e-4; here the penalty is on the
           importances themselves. Rate and minimality were chosen after trials with the first
           seed. A subcomponent remains if its length is above a tenth.
Selection  None: all seeds.
Command    toymodels run experiments/more_subcomponents.py
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy import optimize

import toymodels as tm
from toymodels import circuits, experiment, plotting
from toymodels.analysis import geometry, subcomponents

SPD = tm.paper("Bushnaq, Braun and Sharkey (2025), TMS 40-10")
FOUND = tm.finding("first measured here")
FEWER = "Ours, because we make fewer updates of fewer inputs."
TRIALS = "Ours, after trials of the first seed with 50 to 160 subcomponents."
HALFWAY = (
    "Most features have a subcomponent of their own, which still holds a part of some others. "
    "Scores rise with the number of subcomponents and had not levelled off."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 40
    hidden: int = 10
    density: float = 0.05
    parts: tuple[int, ...] = (50, 100, 200)
    """The numbers of subcomponents."""
    gate_units: int = 4
    """The hidden units of the small network that decides whether a subcomponent is needed."""
    minimality: float = 3e-4
    """The weight of the penalty on needed subcomponents."""
    num_seeds: int = 2
    training: tm.Recipe = tm.Recipe(steps=3000, batch=256, learning_rate=1e-2)
    """The training of the models that are decomposed."""
    updates: int = 12_000
    """The updates of a decomposition; the learning rate falls from `rate` along a cosine."""
    examples: int = 128
    """The inputs of an update."""
    rate: float = 5e-3


SMOKE = Config(
    num_features=4,
    hidden=2,
    parts=(5,),
    gate_units=1,
    num_seeds=1,
    training=tm.Recipe(steps=20, batch=8, learning_rate=1e-2),
    updates=5,
    examples=4,
)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    def cell(key, *, parts):
        key_model, key_parts = jax.random.split(key)
        task = tm.Task(tm.SparseUniform(config.num_features, config.density))
        model = tm.ReLUOutput(config.hidden)
        recipe = tm.Recipe(steps=config.updates, batch=config.examples, learning_rate=config.rate)
        params = config.training.train(key_model, model, task, evaluation=0).params
        weights = params["weights"]

        def sample(key, batch):
            return jnp.abs(tm.SomeActive(config.num_features, config.density).sample(key, batch))

        found = circuits.decompose_parameters(
            key_parts,
            weights,
            params["bias"],
            sample,
            parts=parts,
            gate_units=config.gate_units,
            minimality=config.minimality,
            **recipe.settings(),
        )
        importance, _ = circuits.importances(found, weights, value=0.75)
        return {
            "length": geometry.feature_norms(weights),
            "cosine": subcomponents.column_cosines(found.left, found.right, weights),
            "ratio": subcomponents.length_ratios(found.left, found.right, weights),
            "error": subcomponents.recovery_errors(found.left, found.right, weights),
            "importance": jnp.pad(importance, ((0, 0), (0, max(config.parts) - parts))),
            "remaining": jnp.sum(subcomponents.lengths(found.left, found.right) > 0.1),
            "unfaithful": subcomponents.sum_error(found.left, found.right, weights),
        }

    results = tm.sweep(
        cell,
        static={"parts": config.parts},
        num_seeds=config.num_seeds,
        dims={
            **dict.fromkeys(("length", "cosine", "ratio", "error"), ("feature",)),
            "importance": ("feature", "subcomponent"),
        },
        store=store,
    )
    return results.assign_attrs(hidden=config.hidden)


def matched(results: xr.Dataset):
    """Return the importances of the subcomponents that suit the features best, in their order."""
    shown = results["importance"].isel(seed=0, parts=-1).transpose("feature", "subcomponent")
    _, columns = optimize.linear_sum_assignment(-shown.values)
    return shown.values[:, columns]


def claims(results: xr.Dataset) -> tm.Claims:
    features, hidden = results.sizes["feature"], int(results.attrs["hidden"])
    means = {name: results[name].mean(("feature", "seed")) for name in ("cosine", "ratio", "error")}
    few, many = results["parts"].values[[0, -1]].tolist()
    says = "All features are represented, measured by the length of the shortest column."
    source = tm.prediction("Sparse features are all represented")
    middle = "Ours, because it is the middle between the lengths 0 and 1."
    yield tm.at_least(says, 0.5, results["length"].min(), source, threshold=middle)
    says = "The mean over features of the maximal cosine with a subcomponent (MMCS) is 1 with "
    says += f"{many} subcomponents."
    value = means["cosine"].sel(parts=many)
    yield tm.near(says, 1, value, SPD, within=0.005, threshold=FEWER, note=HALFWAY)
    says = "The mean ratio of the length of the most similar subcomponent, in the column of a "
    says += f"feature, to that of the feature (ML2R) is 1.010 with {many} subcomponents."
    value = means["ratio"].sel(parts=many)
    yield tm.near(says, 1.01, value, SPD, within=0.03, threshold=FEWER, note=HALFWAY)
    says = f"About as many of {many} subcomponents remain as there are features, measured by the "
    says += "mean over seeds."
    one = "Ours, because one in ten is little; the authors find exactly as many."
    remaining = results["remaining"].sel(parts=many).mean()
    yield tm.near(says, features, remaining, SPD, within=features / 10, threshold=one)
    says = "Twice as many subcomponents lower the relative error of the nearest subcomponent by a "
    says += "fifth or more, measured by the largest ratio of the mean errors."
    errors = means["error"].values
    ratio = (errors[1:] / errors[:-1]).max(initial=np.nan if len(errors) < 2 else 0)
    yield tm.at_most(says, 0.8, ratio, FOUND, threshold=TRIALS)
    says = f"Decomposition fails with {few} subcomponents, measured by the mean relative error of "
    says += "the nearest subcomponent."
    yield tm.at_least(says, 0.7, means["error"].sel(parts=few), FOUND, threshold=TRIALS)
    says = f"Most of a feature is in one of {many} subcomponents and in nothing else, measured by "
    says += "the mean relative error of the nearest subcomponent."
    half = "Ours, because most is more than half."
    yield tm.at_most(says, 0.5, means["error"].sel(parts=many), FOUND, threshold=half)
    says = f"The mean of the maximal cosines between a feature and {many} subcomponents is well "
    says += f"above chance in {hidden} dimensions, measured by the difference."
    lead = means["cosine"].sel(parts=many) - subcomponents.chance_cosine(many, hidden)
    yield tm.at_least(says, 0.15, lead, FOUND, threshold="Ours, because it is far from 0.")
    says = "The mean of the maximal cosines between features and subcomponents shows the failure "
    says += f"of {few} subcomponents, measured by how much larger it is with {many}."
    gain = means["cosine"].sel(parts=many) - means["cosine"].sel(parts=few)
    yield tm.at_least(says, 0.1, gain, FOUND, threshold="Ours, because it is easily seen.")
    says = "Subcomponents add up to the weights of the model in all runs, measured by the largest "
    says += "relative error."
    small = "Ours, because one part in twenty is small."
    yield tm.at_most(says, 0.05, results["unfaithful"].max(), FOUND, threshold=small)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (scores, matrix) = plotting.figure(1, 2, size=(8.2, 3.9), width_ratios=(1.25, 1))
    parts = results["parts"].values
    names = {"cosine": "cosine (MMCS)", "ratio": "length (ML2R)", "error": "error of the whole"}
    for place, (name, label) in enumerate(names.items()):
        values = results[name].mean("feature")
        mean, color = values.mean("seed"), f"C{place}"
        how = {"chosen": mean, "choice": "mean", "label": label, "color": color}
        plotting.every_seed(scores, values, x="parts", marker=plotting.MARKERS[place], **how)
    hidden = int(results.attrs["hidden"])
    chance = [subcomponents.chance_cosine(int(count), hidden) for count in parts]
    scores.plot(parts, chance, "--", color="C0", lw=1, label="cosine by chance")
    scores.set(xscale="log", xlabel="number of subcomponents", ylabel="mean over features")
    plotting.plain_ticks(scores, "x", parts.tolist())
    scores.set(ylim=(0, 1.1))
    features = results.sizes["feature"]
    scores.set_title(f"{features} features in {hidden} dimensions:\nmore subcomponents find more")
    scores.legend(loc="lower left")
    image = matrix.imshow(matched(results), cmap=plotting.VALUE_MAP, norm=plotting.Normalize(0, 1))
    figure.colorbar(image, ax=matrix, label="importance", shrink=0.8)
    matrix.set(xlabel="subcomponent that suits it best", ylabel="active feature")
    matrix.set_title(f"Subcomponents that a feature needs\n({parts[-1]} subcomponents, seed 0)")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
