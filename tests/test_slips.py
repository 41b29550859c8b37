"""The commonest slips of a user are refused in one line that names the remedy."""

import subprocess
import sys

# What is refused.

SLIPS = """
import flax.linen as nn, jax, jax.numpy as jnp, optax, toymodels as tm
from flax import nnx
from toymodels import circuits, interventions as iv
import numpy as np
from toymodels.analysis import activity, attention, attribution
import xarray as xr

class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))

class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True)(nn.Dense(3)(x))

class Nothing(nn.Module):
    def __call__(self, x):
        return x

right = {"key": jax.random.key(0), "model": tm.ReLUOutput(2), "task": tm.Task(tm.Binary(3, 0.5)),
         "optimizer": optax.sgd(0.1), "steps": 1, "batch": 2, "evaluation": 2}
tm.train(**{**right, "key": jax.random.PRNGKey(0)})  # the old form is taken
for wrong in (
    {"key": 0}, {"key": jax.random.split(right["key"])}, {"optimizer": optax.adam},
    {"task": tm.Binary(3, 0.5)}, {"model": tm.ReLUOutput},
    {"model": nnx.Linear(3, 3, rngs=nnx.Rngs(0))}, {"model": Dropping()},
    {"model": Normalised()}, {"model": Nothing()}, {"key": None},
    {"task": tm.Task(tm.Binary(3, 0.5), jnp.ones(3))}, {"snapshots": 1},
    {"task": tm.Task(jnp.ones((4, 3)))}, {"model": tm.ReLUAutoencoder},
    {"task": tm.Task(tm.MarkovChains(3, 4))},
):
    try:
        tm.train(**{**right, **wrong})
    except ValueError as error:
        print(error)
params = {"weights": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
model, x, batch = right["model"], jnp.ones(3), jnp.ones((2, 3))
part, parts = iv.unit("hidden", 0), iv.directions("hidden", jnp.eye(2))
node, edge = iv.Node(part, iv.keeping(tm.Binary(3, 0.5), [0])), ("input", "output")
graph = circuits.Graph((edge,))
layers = circuits.Layer(jnp.ones((2, 3))), circuits.Layer(jnp.ones((3, 2)))
ones = lambda key, batch: jnp.ones((batch, 3))
loss = lambda x, y: jnp.sum((x - y) ** 2)
fitted = {"gate_units": 2, "minimality": 0.1, "optimizer": right["optimizer"], "steps": 1,
          "batch": 2}
for read in (tm.activations, lambda *of: tm.intervene(*of, {})):
    try:
        read(right["model"], params, jnp.zeros((7, 3)))
    except ValueError as error:
        print(error)
for slip in (
    lambda: tm.intervene(right["model"], params, jnp.zeros(3), {"hidden": 0.0}),
    lambda: tm.analysis.geometry.feature_dimensionality(params),
    lambda: tm.fit_autoencoder(right["key"], tm.ReLUAutoencoder(2), params["weights"], penalty=0.1,
                               optimizer=right["optimizer"], steps=1, batch=2),
    lambda: tm.apply(params["weights"], tm.analysis.geometry.feature_dimensionality),
    lambda: tm.apply(tm.analysis.geometry.feature_dimensionality, params["weights"]),
    lambda: tm.explain(right["task"], right["model"]),
    lambda: tm.best_of(params, "loss"),
    lambda: tm.params(params),
    lambda: iv.run(params, model, x, iv.zero(part)),
    lambda: iv.run(model, params, [0.5, 0.0, 0.0], iv.zero(part)),
    lambda: iv.direction([1.0, 0.0], "hidden"),
    lambda: iv.directions("hidden", jnp.ones(2)),
    lambda: iv.run(model, params, x, iv.mean(iv.whole("hidden"), {"hidden": jnp.ones(2)})),
    lambda: iv.patching(model, params, x, x, part, lambda output: output),
    lambda: iv.attribution_patching(model, params, x, x, iv.whole("hiden"), lambda y: y[0]),
    lambda: iv.edge_attribution(model, params, x, x, part, "output", lambda y: y[0]),
    lambda: iv.lesions(model, params, batch, [part], iv.zero, right["task"].loss),
    lambda: iv.lesions(model, params, batch, parts, iv.zero(part), right["task"].loss),
    lambda: iv.lesions(model, params, batch, parts, iv.zero, right["task"]),
    lambda: iv.damage(model, params, batch[:0], right["task"].loss, iv.zero(part)),
    lambda: iv.stimulation(model, params, batch, part, 1.0, lambda y: y[0]),
    lambda: iv.patching_map(model, params, x, x, lambda y: y[0], parts=parts),
    lambda: iv.label(iv.Part("hidden")),
    lambda: iv.bootstrap(right["key"], []),
    lambda: iv.zero("hidden"),
    lambda: iv.patching(model, params, x, x, "hidden", lambda y: y[0]),
    lambda: iv.scrub(right["key"], model, params, batch, [node], right["task"], loss),
    lambda: iv.interchange_accuracy(model, params, batch, batch, part, lambda b, s: s[0] > 0,
                                    lambda y: y > 0),
    lambda: iv.interchange_accuracy(model, params, batch, batch[:1], part, lambda b, s: s > 0,
                                    lambda y: y > 0),
    lambda: iv.align(right["key"], model, params, lambda key, batch: jnp.ones((batch, 3)), None,
                     site="hidden", size=1, optimizer=right["optimizer"], steps=1, batch=2),
    lambda: iv.keeping(tm.Binary(3, 0.5), 0),
    lambda: iv.keeping(tm.Binary(3, 0.5), [3]),
    lambda: iv.keeping(tm.Binary(3, 0.5), [0.5]),
    lambda: iv.scrub(right["key"], model, params, batch, node, tm.Binary(3, 0.5), loss),
    lambda: iv.scrub(right["key"], model, params, batch, [node], tm.Binary(3, 0.5), None),
    lambda: circuits.decompose_layers(right["key"], layers, ones, parts=2, **fitted),
    lambda: circuits.decompose_layers(right["key"], layers[0], ones, parts=(2, 2, 2), **fitted),
    lambda: circuits.decompose_layers(right["key"], layers[::-1], ones, parts=(2, 2), **fitted),
    lambda: tm.plotting.bands(None, np.ones((2, 3)), x="density", lines="model"),
    lambda: activity.firing(jnp.eye(3), jnp.eye(3) > 0, jnp.array([0])),
    lambda: tm.Ladder(densities=0.5).train(),
    lambda: tm.Bench(distributions=[tm.Binary(3, 0.5)]).train(),
    lambda: tm.score_method(lambda key, seen: seen.fresh, None),
    lambda: tm.score_dictionary(lambda key, seen: seen.fresh, xr.Dataset()),
    lambda: circuits.all_edges(model, params, circuits.Graph(("input", "hidden")), x),
    lambda: circuits.all_edges(model, params, {"input": "hidden"}, x),
    lambda: circuits.run(model, params, graph, x, x, {"input": 1.0}),
    lambda: circuits.run(model, params, graph, x, x, jnp.ones(12)),
    lambda: circuits.run(model, params, graph, x, x, {edge: jnp.full((3, 3), 2.0)}),
    lambda: circuits.areas(jnp.ones((2, 3))),
    lambda: attention.previous_token_score(jnp.asarray([[1.0, 0.0], [0.5, 0.5]]).T),
    lambda: attention.induction_score(jnp.eye(2), jnp.full((2, 2), 0.5)),
    lambda: attribution.shapley_values(lambda x: x, x),
    lambda: circuits.minimal_circuits(jnp.ones(4)),
    lambda: circuits.holds_faithful(jnp.ones((4, 2), bool)),
    lambda: circuits.of_edges(jnp.ones(2), {edge: jnp.ones((3, 3))}),
    lambda: circuits.vector(jnp.ones(2)),
    lambda: tm.mean_without_worst(xr.Dataset({"loss": ("seed", [1.0, 2.0])}, {"seed": [0, 1]}),
                                  "loss", of=1),
    lambda: tm.AttentionOnly(1, 1, 4, 2).init(right["key"], jnp.asarray([0, 1, 0])),
):
    try:
        slip()
    except ValueError as error:
        print(error)
"""


REMEDIES = (
    "key is 0: give a key, such as jax.random.key(0)",
    "key has shape (2,) and type key<fry>: give ONE key",
    "optimizer is adam, not an optimizer: call it, as in optax.adam(1e-3)",
    "task is of type Binary: give tm.Task(Binary(...))",
    "model is the class ReLUOutput: give an instance, such as ReLUOutput(hidden=2)",
    "model is of type flax.nnx.nn.linear.Linear: give a Flax Linen module",
    "the model draws random numbers, as dropout does, but a model must be",
    "the model keeps state beside its parameters (batch_stats)",
    "the model Nothing has no parameters to train",
    "key is None: give a key, such as jax.random.key(0)",
    "target is of type ArrayImpl: give a function of one example, and importances by name",
    "snapshots is 1: give a list of whole numbers of updates",
    "the features of the task are of type ArrayImpl: give a distribution",
    "model is the class ReLUAutoencoder: give an instance, such as ReLUAutoencoder(latents=2)",
    "the model cannot take an input of shape (4, 3): give ONE vector of features, and use",
    *["the model cannot take an input of shape (7, 3): give ONE vector of features, and use"] * 2,
    "the patch of site 'hidden' is of type float: give a function of the site's value",
    "weights is of type dict: give one array of numbers",
    "activations is of type ArrayImpl: give a distribution, such as tm.Activations(...)",
    "measure is of type ArrayImpl: give the function itself, and then the arrays",
    "an array of apply is of type ArrayImpl: give a labelled array of a sweep",
    "model is of type Task: give the model first, then the task",
    *["results is of type dict: give the xarray.Dataset of a sweep"] * 2,
    "the model is of type dict: give a Linen module first, and then its parameters",
    "the example is a list of numbers: give an array, jnp.asarray(example)",
    "the direction is 'hidden': give the name of the site, then a vector",
    "the directions have shape (2,): give a matrix with one in each column",
    "the reference batch of site 'hidden' has shape (2,), and the site has (2,): give the",
    "the metric returns shape (3,): give a function of the output that returns one number",
    "no site 'hiden' in this model: it has hidden, output, preactivation",
    "no site Part(",
    "parts is of type list: give a batch of parts, such as interventions.directions",
    "ablation is of type Edit, not a function: give a function of a part",
    "loss is of type Task, not a function: give a function of ONE example and its output",
    "examples has shapes (0, 3): give a batch of one example or more",
    "amounts has shape (): give one axis of numbers",
    "parts is of type Part: give a dictionary from any names to batches of parts",
    "the effects are of type Part: give what patching_map returns",
    "values has shape (0,): give one value or more to resample",
    *["the part is of type str: give a part, such as interventions.whole(site)"] * 2,
    "features is of type Task: give a distribution of inputs, such as task.features",
    "label returns shape (3,) and predicted (): give functions that return labels of one",
    "bases has 2 and sources has 1 entries along the leading axis",
    "sample returns a ",
    "indices is 0: give a list, [0]",
    "index 3 is no feature: give whole numbers from 0 to 2",
    "index 0.5 is no feature: give whole numbers from 0 to 2",
    "nodes is not a list of nodes: give [interventions.Node(part, resample)]",
    "loss is of type NoneType, not a function: give a function of ONE example and its output",
    "parts is 2: give a number for each layer, such as (2, ...)",
    "a layer is of type ",
    "sample has 3 and weights has 2 inputs: give arrays with equal numbers of inputs",
    "values is a ndarray: give an xarray.DataArray, whose dimensions say which one is density",
    "matching has 1 and active has 3 features: give arrays with equal numbers of features",
    "densities are 0.5: give a list of numbers between 0 and 1",
    "distributions is of type list: give a dictionary from any names to distributions",
    "models is of type NoneType: give the result of tm.Ladder().train()",
    "models has no 'weights': give the result of tm.Bench().train()",
    "an edge of the graph is 'input': give pairs of sites",
    "the graph is of type dict: give a circuits.Graph(...)",
    "the circuit and the graph differ at the edges ",
    "the circuit is of type ArrayImpl: give a number for each edge",
    "the share of clean information of an edge ('input', 'output') is 2, outside [0, 1]",
    "the curve has shape (2, 3): give the faithfulness of 0, 1, 2, ... edges of ONE circuit",
    "a row of the pattern sums to 1.5, not to 1: give the attention after the softmax",
    "the tokens are not one-hot: give one 1 at each position",
    "the function returns shape (3,): give one that returns one number",
    "faithful holds float32 numbers: give truth values",
    "faithful has shape (4, 2): give one truth value for each of 2^E circuits",
    "the numbers have shape (2,), but there are 9 edges: give one number for each",
    "the edges are of type ArrayImpl: give one array for each pair of sites",
    "of is 1: give a whole number, 2 or more",
    "the tokens have shape (3,): give ONE sequence of length x features",
)


def test_the_commonest_slips_are_refused_in_one_line_each():
    # The process is a new one, without the checks of types that tests have.
    finished = subprocess.run(
        [sys.executable, "-c", SLIPS], capture_output=True, text=True, check=True
    )
    messages = finished.stdout.splitlines()
    assert len(messages) == len(REMEDIES)
    for message, remedy in zip(messages, REMEDIES, strict=True):
        assert message.startswith(remedy), message
