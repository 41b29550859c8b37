r"""Induction heads: how a small transformer learns to predict Markov chains in context.

Claim      Every model first predicts by how often each token has occurred. Then, over a short part
           of training, one head learns to look at the previous token, another learns to look at
           what followed the present token before, and the loss falls close to that of the exact
           Bayes predictor, which no model passes.
Reproduces Edelman et al. (2024), "The Evolution of Statistical Induction Heads", the figure of a
           two-layer transformer. The scores of Olsson et al. (2022) say what heads attend to.
Settings   Attention alone: two layers of one head, relative positions, width 16, heads of width 8.
           Each sequence has 50 tokens of a chain of 3 states whose rows are uniform on the simplex.
           Adam with a constant learning rate. All snapshots of all seeds are measured on common
           sequences. Losses are expectations over the next token, given the tokens so far.
Selection  None: claims and bands are over all seeds.
Command    toymodels run experiments/induction.py
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import lax
from jaxtyping import Array

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import attention
from toymodels.theory import sequences

PAPER = tm.paper("Edelman et al. (2024), The Evolution of Statistical Induction Heads")
HEADS = tm.paper("Olsson et al. (2022), In-context Learning and Induction Heads")
BAYES = tm.identity("The posterior of the chain is the best predictor")
CHANCE = tm.identity("Uniform attention to the past")
FOUND = tm.finding("first measured here")
NO_NUMBER = "Ours, because the paper shows a picture, and gives no number."
SEEN = "Ours, after a trial with 2 seeds."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_states: int = 3
    length: int = 50
    num_seeds: int = 16
    learning_rates: tuple[float, ...] = (3e-4, 3e-3)
    """The first rate is the slowest, and the others are whole multiples of it."""
    steps: int = 4000
    """The number of updates at the first learning rate; a rate of twice its size takes half."""
    batch: int = 32
    snapshots: int = 24
    sequences: int = 400
    """The number of sequences on which every snapshot is measured."""


SMOKE = Config(length=8, num_seeds=2, learning_rates=(1e-2,), steps=40, snapshots=5, sequences=8)


def run(config: Config) -> xr.Dataset:
    features = tm.MarkovChains(config.num_states, config.length)
    model = tm.AttentionOnly(layers=2, heads=1, width=16, head_width=8, relative=True)
    slowest, fastest = config.learning_rates[0], max(config.learning_rates)
    # Equal products of learning rate and step, so that all rates share their snapshots.
    fewest = round(config.steps * slowest / fastest)
    progress = tm.log_spaced(fewest, config.snapshots)

    def cell(key, *, learning_rate):
        steps = round(config.steps * slowest / learning_rate)
        how = {"optimizer": optax.adam(learning_rate), "steps": steps, "batch": config.batch}
        kept = [steps // fewest * step for step in progress]
        task = tm.NextToken(features)
        trained = tm.train(key, model, task, **how, snapshots=kept, evaluation=0)
        return {"params": trained.snapshots}

    trained = tm.sweep(
        cell, static={"learning_rate": config.learning_rates}, num_seeds=config.num_seeds
    )
    chains = tm.jit(lambda key: features.sample(key, config.sequences))(jax.random.key(2024))
    per_update = np.asarray(config.learning_rates)[:, None] / fastest
    steps = np.rint(np.asarray(progress)[None] / per_update)
    found = measured(model, trained, chains)
    for name, level in levels(chains).items():
        found[name] = (("position",) if level.ndim else (), np.asarray(level))
    return found.assign_coords(
        step=(("learning_rate", "snapshot"), steps), position=np.arange(1, config.length)
    )


def measured(model: tm.AttentionOnly, trained: xr.Dataset, chains: Array) -> xr.Dataset:
    """Measure every snapshot of every model, and the last ones without one of their heads."""
    cells = ("learning_rate", "seed", "snapshot")
    snapshots = tm.params(trained)
    last = jax.tree.map(lambda leaf: leaf[:, :, -1:], snapshots)
    lesioned = [without_head(last, layer) for layer in range(2)]
    models = jax.tree.map(lambda *a: jnp.concatenate(a, axis=2), snapshots, *lesioned)
    shape = models["W_E"].shape[: len(cells)]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(cells) :]), models)

    @tm.jit
    def measure_all(models, chains):
        # Measure one model after another, because many at once do not fit the cache.
        return lax.map(lambda params: measure(model, params, chains), models)

    every = measure_all(flat, chains)
    found = {name: np.reshape(each, (*shape, *each.shape[1:])) for name, each in every.items()}
    dims = {"loss": "position", "previous": "layer", "induction": "layer", "composition": "reads"}
    # The last two models of a cell are those without a head.
    results = xr.Dataset(
        {name: ((*cells, *dims.get(name, "").split()), found[name][:, :, :-2]) for name in found},
        {"learning_rate": trained["learning_rate"], "reads": ["queries", "keys"]},
    )
    results["without_head"] = (("learning_rate", "seed", "layer"), found["loss"][:, :, -2:].mean(3))
    return results


def without_head(params, layer: int) -> Any:
    """Return models whose head of one layer attends to all of the past alike: its queries are 0.

    The output of the head stays, and only its choice of places is lost.
    """
    own = params[f"layer_{layer}"]
    return {**params, f"layer_{layer}": {**own, "W_Q": 0 * own["W_Q"]}}


@jax.jit
def levels(chains: Array) -> dict[str, Array]:
    """Return the losses of predictors at each position, and the scores of uniform attention."""
    length, num_states = chains.shape[1:]
    unigram, exact = predictions(chains)
    losses = {"guess": jnp.full(chains.shape, 1 / num_states), "unigram": unigram, "bayes": exact}
    past = jnp.tril(jnp.ones((length, length)))
    uniform = past / jnp.sum(past, axis=1, keepdims=True)
    score = jax.vmap(lambda tokens: attention.induction_score(uniform, tokens))(chains)
    return {
        **{name: expected_loss(each, chains) for name, each in losses.items()},
        "bayes_sampled": jnp.mean(jax.vmap(sequences.next_token_loss)(exact, chains)),
        "uniform_previous": attention.previous_token_score(uniform),
        "uniform_induction": jnp.nanmean(score),
    }


def predictions(chains: Array) -> tuple[Array, Array]:
    """Return the probabilities of the in-context unigram and of the exact predictor."""
    unigram = jax.vmap(sequences.in_context_unigram)(chains)
    return unigram, jax.vmap(sequences.in_context_bigram)(chains)


def expected_loss(probabilities: Array, chains: Array) -> Array:
    """Return the mean loss at each position over next tokens, given the tokens of each sequence.

    The next token has the probabilities of the exact predictor, so that no token is drawn.
    """
    _, exact = predictions(chains)
    return jnp.mean(-jnp.sum(exact * jnp.log(probabilities), axis=2), axis=0)[:-1]


def measure(model: tm.AttentionOnly, params, chains: Array) -> dict[str, Array]:
    """Return the losses of one snapshot, the scores of its heads, and what keys of layer 1 read."""
    values = jax.vmap(lambda tokens: tm.activations(model, params, tokens))(chains)
    probabilities = jax.nn.softmax(values["output"])
    unigram, _ = predictions(chains)
    divergence = jnp.sum(unigram * jnp.log(unigram / probabilities), axis=2)[:, :-1]
    patterns = [values[f"layer_{layer}/pattern"][:, 0] for layer in range(2)]
    previous = [jnp.mean(jax.vmap(attention.previous_token_score)(each)) for each in patterns]
    induction = [jnp.nanmean(jax.vmap(attention.induction_score)(p, chains)) for p in patterns]
    first, second = ({n: w[0] for n, w in params[f"layer_{i}"].items()} for i in range(2))
    chosen = attention.qk_circuit(second["W_Q"], second["W_K"])
    moved = attention.ov_circuit(first["W_O"], first["W_V"])
    reads = [attention.composition_score(reader, moved) for reader in (chosen.T, chosen)]
    return {
        "sampled": jnp.mean(jax.vmap(sequences.next_token_loss)(probabilities, chains)),
        "loss": expected_loss(probabilities, chains),
        "from_unigram": jnp.mean(divergence),
        "previous": jnp.stack(previous),
        "induction": jnp.stack(induction),
        "composition": jnp.stack(reads),
    }


def crossing(curve: xr.DataArray, height, step: xr.DataArray) -> xr.DataArray:
    """Return the step, by interpolation, at which a rising curve first passes a height, or NaN."""
    above = curve > height
    place = above.argmax("snapshot").clip(1)
    low, high = curve.isel(snapshot=place - 1), curve.isel(snapshot=place)
    share = ((height - low) / (high - low)).clip(0, 1)
    before, after = step.isel(snapshot=place - 1), step.isel(snapshot=place)
    return (before + share * (after - before)).where(above.any("snapshot"))


def claims(results: xr.Dataset) -> tm.Claims:
    slow, last = results.isel(learning_rate=0), results.isel(learning_rate=0, snapshot=-1)
    loss = slow["loss"].mean("position")
    unigram, bayes = (float(results[name].mean()) for name in ("unigram", "bayes"))
    says = "No snapshot of any seed has a lower loss on the common sequences than the exact "
    says += "predictor."
    lead = (results["sampled"] - results["bayes_sampled"]).min()
    yield tm.at_least(says, 0, lead, BAYES)
    nearest = slow["from_unigram"].min("snapshot")
    says = "At some snapshot every seed predicts almost like the in-context unigram, which counts "
    says += "tokens, measured by the largest over seeds of the smallest divergence in nats."
    yield tm.at_most(says, 0.04, nearest.max(), PAPER, threshold=SEEN)
    says = "At the end every seed is nearer to the exact predictor than to the in-context unigram, "
    says += "measured by the largest ratio of the two divergences."
    ratio = (loss.isel(snapshot=-1) - bayes) / last["from_unigram"]
    note = "15 of 16 seeds are below 0.42. Seed 6 forms neither head by the last step, at both "
    note += "learning rates, and its layer 1 attends less than uniformly to what followed before."
    yield tm.at_most(says, 0.6, ratio.max(), PAPER, threshold=SEEN, note=note)
    says = "The median seed gains most of the difference in loss between the in-context unigram "
    says += "and the exact predictor."
    gained = (unigram - loss.isel(snapshot=-1)) / (unigram - bayes)
    yield tm.at_least(says, 0.6, gained.median(), PAPER, threshold=SEEN)
    says = "At the start the head of layer 0 attends to the previous token as much as uniform "
    says += "attention does, measured by the largest difference of the scores over seeds."
    gap = abs(slow["previous"].isel(snapshot=0, layer=0) - results["uniform_previous"]).max()
    yield tm.near(says, 0, gap, CHANCE, within=0.01, threshold="Ours, because starts are random.")
    ends = {
        "previous": (0, 0.8, "the previous token"),
        "induction": (1, 0.75, "tokens that followed the present token before"),
    }
    for name, (layer, minimum, what) in ends.items():
        says = f"At the end the head of layer {layer} attends to {what}, measured by the median "
        says += "attention over seeds."
        score = last[name].sel(layer=layer).median()
        yield tm.at_least(says, minimum, score, HEADS, threshold=SEEN)
    says = "At the end the keys of layer 1 read more of what layer 0 writes than random matrices "
    says += "of width 16 would, measured by the median ratio of the two composition scores."
    ratio = last["composition"].sel(reads="keys").median() * 16**0.5
    yield tm.at_least(
        says, 1.5, ratio, HEADS, threshold="Ours, because it is half more than by chance."
    )
    says = "At the end the keys of layer 1 read more of what layer 0 writes than its queries do, "
    says += "measured by the median difference of the composition scores over seeds."
    more = last["composition"].sel(reads="keys") - last["composition"].sel(reads="queries")
    yield tm.at_least(
        says, 0, more.median(), HEADS, threshold="Ours, because any difference counts."
    )
    for layer in range(2):
        says = f"A trained model whose head of layer {layer} attends uniformly is no better than "
        says += "the in-context unigram, measured by the lowest ratio of the losses of any seed."
        lowest = last["without_head"].sel(layer=layer).min() / unigram
        threshold = "Ours, because it is a tenth of what the exact predictor gains."
        yield tm.at_least(says, 1, lowest, HEADS, slack=0.01, threshold=threshold)
    says = "At the first position, where attention has only one token to look at, every trained "
    says += "model is worse than a uniform guess, measured by the smallest excess in nats."
    worse = (last["loss"] - results["guess"]).isel(position=0).min()
    note = "Attention adds up to 1: a head sees the shares of tokens, but not how many there are."
    yield tm.at_least(says, 0.1, worse, FOUND, threshold=SEEN, note=note)
    says = "Over the last ten positions the median seed is close to the exact predictor, measured "
    says += "by the excess of its loss in nats."
    gap = (last["loss"] - results["bayes"]).isel(position=slice(-10, None)).mean("position")
    yield tm.at_most(says, 0.05, gap.median(), FOUND, threshold=SEEN)
    times = halfway(slow, unigram)
    says = "The induction score and the loss make half of their change at nearly one step, "
    says += "measured by the median ratio of the two steps."
    ratio = (times["induction"] / times["loss"]).median()
    yield tm.near(says, 1, ratio, HEADS, within=0.15, threshold=NO_NUMBER)
    says = "The induction score makes half of its change before the previous-token score does, "
    says += "measured by the median ratio of the two steps."
    ratio = (times["induction"] / times["previous"]).median()
    yield tm.at_most(says, 1, ratio, FOUND, threshold=SEEN)
    if results.sizes["learning_rate"] > 1:
        rates = results["learning_rate"].values
        expected = round(rates[-1] / rates[0])
        says = f"With {expected} times the learning rate the phase change comes as many times "
        says += "earlier, measured by the ratio of the median steps of half the change of the loss."
        fast = halfway(results.isel(learning_rate=-1), unigram)
        ratio = times["loss"].median() / fast["loss"].median()
        source = tm.prediction("Steps of Adam are as long as the learning rate")
        yield tm.near(says, expected, ratio, source, within=0.2 * expected, threshold=SEEN)


def halfway(results: xr.Dataset, unigram: float) -> dict[str, xr.DataArray]:
    """Return the steps at which loss and scores of each seed have made half of their change.

    The change of the loss begins at the in-context unigram, and that of a score before training.
    """
    loss = -results["loss"].mean("position")
    previous, induction = results["previous"].sel(layer=0), results["induction"].sel(layer=1)
    middles = {
        "loss": (loss, (loss.isel(snapshot=-1) - unigram) / 2),
        "previous": (previous, previous.isel(snapshot=[0, -1]).mean("snapshot")),
        "induction": (induction, induction.isel(snapshot=[0, -1]).mean("snapshot")),
    }
    return {name: crossing(*curve, results["step"]) for name, curve in middles.items()}


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (left, right) = plotting.figure_of_parts(1, 2, size=(9.0, 5.2), width_ratios=(1.5, 1))
    slow = results.isel(learning_rate=0)
    slow = slow.isel(snapshot=slice(1, None))  # step 0 has no place on a logarithmic axis
    slow = slow.swap_dims(snapshot="step")
    above, below = left.subplots(2, 1, sharex=True)
    loss = slow["loss"].mean("position")
    plotting.range_band(above, loss, x="step", color="k", label="two-layer attention")
    known = {"unigram": "counts of tokens (unigram)", "bayes": "counts of pairs: exact predictor"}
    for color, (name, label) in zip(("C1", "C2"), known.items(), strict=True):
        above.axhline(results[name].mean(), color=color, ls="--", label=label)
    seeds = results.sizes["seed"]
    above.set(ylabel="loss (nats per token)")
    above.set_title("First the model learns to count tokens,\nthen two heads form and count pairs")
    above.legend(title=f"line: median, band: all {seeds} seeds")
    heads = {
        "C0": (slow["previous"].sel(layer=0), "layer 0: to the previous token"),
        "C3": (slow["induction"].sel(layer=1), "layer 1: to what followed before"),
    }
    for color, (score, label) in heads.items():
        plotting.range_band(below, score, x="step", color=color, label=label)
    below.axhline(results["uniform_previous"], color="C0", ls=":", lw=1)
    below.axhline(results["uniform_induction"], color="C3", ls=":", lw=1, label="uniform attention")
    rate = results["learning_rate"].values[0]
    below.set(xscale="log", xlabel=f"step (Adam, learning rate {rate:g})", ylim=(0, 1))
    below.set_ylabel("attention of the head")
    below.legend(loc="upper left")
    by_position(right.subplots(), slow, results)
    return figure


def by_position(axes, slow: xr.Dataset, results: xr.Dataset) -> None:
    """Draw the loss at each position, of trained models and of the predictors."""
    position = results["position"]
    trained = slow["loss"].isel(step=-1)
    plotting.range_band(axes, trained, x="position", color="k", label="trained model")
    axes.plot(position, results["unigram"], "C1--", label="counts of tokens")
    axes.plot(position, results["bayes"], "C2--", label="counts of pairs: exact")
    axes.plot(position, results["guess"], color="0.6", lw=1, label="uniform guess")
    axes.set(xlabel="tokens so far", ylabel="loss of the next token (nats)")
    axes.set_title("After training: close to the exact\npredictor, but for the first tokens")
    axes.legend()


if __name__ == "__main__":
    experiment.main(__file__)
