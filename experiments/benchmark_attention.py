"""How fast do models of attention train? Induction models, against the alternatives.

Sixteen models with two layers of one head learn Markov chains of 3 states and 50 tokens, as in the
experiment `induction`. An update is one optimizer step of one model on a fresh batch.

Contenders toymodels        `toymodels.sweep`
           jit(vmap(scan))  the obvious JAX, with jax.grad and optax.adam
           PyTorch          batched products of all models on one thread, if it is installed
Claim      A sweep trains models of attention a third faster than plain vmap and two thirds faster
           than PyTorch. That is little beside the ratios of models without attention, which the
           experiment `benchmark_training` measures.
Selection  None: lines are medians of the rounds, and every round is a dot. The contenders take
           turns in one process. Time is that of the processor, over all threads, because other
           processes may share it; compilation is left out.
Command    toymodels run experiments/benchmark_attention.py
"""

import dataclasses
import importlib.util
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.engine import programs
from toymodels.sweeps import blocks
from toymodels.sweeps.program import compile_program, default_width

SIDE = tm.finding("Side by side, in processor time")
ALIKE = tm.identity("All contenders train the same model on the same distribution")
GOAL = "Ours, because it is a design goal."
DRAWS = "Ours, because their draws differ."
WIDTH, HEAD_WIDTH = 16, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    layers: int = 2
    num_states: int = 3
    length: int = 50
    models: int = 16
    batch: int = 32
    steps: int = 40
    learning_rate: float = 3e-3
    rounds: int = 3


SMOKE = Config(layers=1, length=6, models=2, batch=4, steps=2, rounds=1)


def parts(config: Config) -> tuple[tm.AttentionOnly, tm.NextToken]:
    size = {"layers": config.layers, "width": WIDTH, "head_width": HEAD_WIDTH}
    model = tm.AttentionOnly(heads=1, relative=True, **size)
    return model, tm.NextToken(tm.MarkovChains(config.num_states, config.length))


def ours(config: Config) -> Callable[[], np.ndarray]:
    """Return a sweep of this package, compiled, which returns the loss of each model."""
    model, task = parts(config)

    def cell(key, *, learning_rate):
        how = {"steps": config.steps, "batch": config.batch, "evaluation": config.batch}
        trained = tm.train(key, model, task, optimizer=optax.adam(learning_rate), **how)
        return {"loss": trained.loss}

    numbers = {"learning_rate": np.full(config.models, config.learning_rate)}
    low = jax.make_jaxpr(lambda key: cell(key, learning_rate=1e-3))(jax.random.key(0))
    width = default_width(programs.largest_array(low.jaxpr))
    program = compile_program(cell, numbers, width=width)

    def work() -> np.ndarray:
        found = np.zeros(config.models)

        def deliver(place, outputs):
            found[place] = outputs["loss"]

        blocks.run(program, np.arange(config.models), numbers, deliver)
        return found

    return work


def plain_vmap(config: Config) -> Callable[[], np.ndarray]:
    """Return a scan over steps, mapped over models in the obvious way, compiled."""
    model, task = parts(config)
    adam = optax.adam(config.learning_rate)

    def loss(params, sequences):
        def of_sequence(tokens):
            return task.loss(tokens, jnp.asarray(model.apply({"params": params}, tokens)))

        return jnp.mean(jax.vmap(of_sequence)(sequences))

    def train(key):
        key_start, key_last, key_data = jax.random.split(key, 3)
        start = model.init(key_start, task.features.sample(key_start, 1)[0])["params"]

        def step(carry, key):
            params, state = carry
            gradient = jax.grad(loss)(params, task.features.sample(key, config.batch))
            updates, state = adam.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(key_data, config.steps)
        (params, _), _ = jax.lax.scan(step, (start, adam.init(start)), keys)
        return loss(params, task.features.sample(key_last, config.batch))

    keys = jax.random.split(jax.random.key(0), config.models)
    compiled = jax.jit(jax.vmap(train)).lower(keys).compile()
    return lambda: np.asarray(compiled(keys))


def in_torch(config: Config) -> Callable[[], np.ndarray]:
    """Return the loop over steps, with a leading axis of models in every product."""
    import torch  # pyright: ignore[reportMissingImports]  an extra

    torch.set_num_threads(1)
    torch.manual_seed(0)
    models, states, length = config.models, config.num_states, config.length
    distance = torch.arange(length)[:, None] - torch.arange(length)[None]
    future = distance < 0

    def matrix(rows, columns):
        weights = torch.randn(models, rows, columns) * (2 / (rows + columns)) ** 0.5
        return weights.requires_grad_()

    def fresh():
        def layer():
            reading = [matrix(HEAD_WIDTH, WIDTH) for _ in range(3)]
            by_distance = 0.02 * torch.randn(models, length, HEAD_WIDTH)
            return [*reading, matrix(WIDTH, HEAD_WIDTH), by_distance.requires_grad_()]

        layers = [layer() for _ in range(config.layers)]
        return matrix(WIDTH, states), layers, matrix(states, WIDTH)

    def sample():
        rows = torch.rand(models, config.batch, states, states).log().neg()
        rows = (rows / rows.sum(-1, keepdim=True)).cumsum(-1)
        uniform = torch.rand(length, models, config.batch)
        token = (uniform[0] * states).long()
        tokens = [token]
        for u in uniform[1:]:
            row = rows.gather(2, token[..., None, None].expand(-1, -1, 1, states))[:, :, 0]
            token = (u[..., None] >= row).sum(-1).clamp(max=states - 1)
            tokens.append(token)
        return torch.stack(tokens, -1)

    def loss(params, tokens):
        embedding, layers, unembedding = params
        hot = torch.nn.functional.one_hot(tokens, states).float()
        stream = torch.einsum("mws,mbis->mbiw", embedding, hot)
        for queries, keys, values, out, by_distance in layers:
            q, k, v = (torch.einsum("mdw,mbiw->mbid", w, stream) for w in (queries, keys, values))
            far = torch.einsum("mbid,mnd->mbin", q, by_distance)
            where = distance.clamp(min=0).expand(models, config.batch, -1, -1)
            scores = (q @ k.transpose(2, 3) + far.gather(3, where)) / HEAD_WIDTH**0.5
            pattern = scores.masked_fill(future, -torch.inf).softmax(-1)
            stream = stream + torch.einsum("mwd,mbid->mbiw", out, pattern @ v)
        logits = torch.einsum("msw,mbiw->mbis", unembedding, stream)[:, :, :-1]
        right = logits.log_softmax(-1).gather(3, tokens[:, :, 1:, None])
        return -right.mean((1, 2, 3))

    def work() -> np.ndarray:
        params = fresh()
        leaves = [params[0], *(each for layer in params[1] for each in layer), params[2]]
        optimizer = torch.optim.Adam(leaves, lr=config.learning_rate)
        for _ in range(config.steps):
            optimizer.zero_grad(set_to_none=True)
            loss(params, sample()).sum().backward()
            optimizer.step()
        return loss(params, sample()).detach().numpy()

    return work


def run(config: Config) -> xr.Dataset:
    contenders = {"toymodels": ours(config), "jit(vmap(scan))": plain_vmap(config)}
    if importlib.util.find_spec("torch") is not None:
        contenders["PyTorch"] = in_torch(config)
    rates = np.zeros((len(contenders), config.rounds))
    losses = {}
    for work in contenders.values():
        work()  # warm up
    for turn in range(config.rounds):
        for row, (name, work) in enumerate(contenders.items()):
            started = time.process_time()
            losses[name] = work()
            spent = time.process_time() - started
            rates[row, turn] = config.models * config.steps / spent
    reached = np.stack(list(losses.values()))
    found = {"rate": (("contender", "round"), rates), "loss": (("contender", "model"), reached)}
    return xr.Dataset(found, {"contender": list(contenders)}, {"cores": os.cpu_count()})


def claims(results: xr.Dataset) -> tm.Claims:
    rate = results["rate"].median("round")
    says = "A sweep of models of attention makes as many updates per second of the processor as "
    says += "plain vmap, measured by the ratio."
    ratio = rate.sel(contender="toymodels") / rate.sel(contender="jit(vmap(scan))")
    yield tm.at_least(says, 0.9, ratio, SIDE, threshold=GOAL)
    others = results["loss"].mean("model")
    says = "All contenders reach one loss, measured by the largest difference of their mean losses."
    gap = others.max() - others.min()
    yield tm.near(says, 0, gap, ALIKE, within=0.05, threshold=DRAWS)
    if "PyTorch" in results["contender"]:  # an extra
        says = "A sweep of models of attention makes more updates per second of the processor than "
        says += "PyTorch, measured by the ratio."
        ratio = rate.sel(contender="toymodels") / rate.sel(contender="PyTorch")
        yield tm.at_least(says, 1.5, ratio, SIDE, threshold=GOAL)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(size=(6.0, 2.6))
    plotting.horizontal_bars(axes, results["rate"], bars="contender")
    title = f"Training {results.sizes['model']} models of attention\n"
    title += f"(median of {results.sizes['round']} rounds)"
    axes.set(xlabel="updates of one model per second of the processor", title=title)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
