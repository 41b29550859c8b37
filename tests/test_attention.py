"""Attention: models written by hand whose heads are known, and sequences with known statistics."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toymodels as tm
from toymodels.analysis import attention
from toymodels.theory import sequences

KEY = jax.random.key(0)
TOKENS, PERIOD = 6, 6
LENGTH = 2 * PERIOD
WIDTH = 3 * TOKENS  # the token, the token before, and the prediction
PLACES = np.eye(WIDTH, dtype=np.float32).reshape(3, TOKENS, WIDTH)
MODEL = tm.AttentionOnly(layers=2, heads=1, width=WIDTH, head_width=TOKENS, relative=True)


def induction_heads(sharpness=60.0):
    """An induction head: layer 0 copies the token before, layer 1 looks for the present token."""
    token, before, prediction = PLACES
    scale = sharpness * TOKENS**0.5
    one = np.zeros((TOKENS, WIDTH), np.float32)
    one[0] = token.sum(axis=0)  # a query that is 1 at every token
    distances = np.zeros((1, LENGTH, TOKENS), np.float32)
    distances[0, 1, 0] = scale
    nothing = np.zeros_like(token)
    layers = {
        "layer_0": {"W_Q": one, "W_K": nothing, "W_V": token, "W_O": before.T, "R": distances[0]},
        "layer_1": {
            "W_Q": scale * token, "W_K": before, "W_V": token, "W_O": prediction.T,
            "R": 0 * distances[0],
        },
    }  # fmt: skip
    return {
        "W_E": jnp.asarray(token.T),
        "W_U": jnp.asarray(sharpness * prediction),
        **jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], layers),
    }


HEADS = induction_heads()
PERMUTED = jnp.tile(jnp.eye(TOKENS)[jnp.asarray([3, 1, 4, 0, 5, 2])], (2, 1))


def test_induction_heads_written_by_hand_complete_what_is_repeated():
    values = tm.activations(MODEL, HEADS, PERMUTED)
    before, induction = values["layer_0/pattern"][0], values["layer_1/pattern"][0]
    np.testing.assert_allclose(attention.previous_token_score(before), 1, atol=1e-6)
    # The first token has none before it and copies itself: when it comes back, half of the
    # attention goes there. All other tokens of the second period find their place.
    score = attention.induction_score(induction, PERMUTED)
    np.testing.assert_allclose(score, 1 - 1 / (2 * PERIOD), atol=1e-6)
    task = tm.NextToken(tm.RepeatedTokens(TOKENS, PERIOD), first=PERIOD + 2)
    assert task.loss(PERMUTED, values["output"]) < 1e-6
    # What is read early does not know it yet.
    early = attention.logit_lens(values["layer_0/residual"], HEADS["W_U"])
    np.testing.assert_allclose(task.loss(PERMUTED, early), np.log(TOKENS), atol=1e-5)
    last = attention.logit_lens(values["layer_1/residual"], HEADS["W_U"])
    np.testing.assert_array_equal(last, values["output"])


def test_the_circuits_of_induction_heads_are_those_that_were_written():
    first, second = (
        {name: leaf[0] for name, leaf in HEADS[layer].items()} for layer in ("layer_0", "layer_1")
    )
    moved = attention.ov_circuit(first["W_O"], first["W_V"])
    np.testing.assert_array_equal(moved, PLACES[1].T @ PLACES[0])
    chosen = attention.qk_circuit(second["W_Q"], second["W_K"])
    # The later head reads the keys alone from the earlier one.
    keys = attention.composition_score(chosen, moved)
    np.testing.assert_allclose(keys, TOKENS**-0.5, rtol=1e-6)
    assert attention.composition_score(chosen.T, moved) == 0
    values = attention.ov_circuit(second["W_O"], second["W_V"])
    assert attention.composition_score(values, moved) == 0
    full = HEADS["W_U"] @ values @ HEADS["W_E"]
    assert attention.copying_score(full) == 1
    assert attention.copying_score(-full) == -1


def test_a_rotation_has_no_copying_and_a_random_turn_composes_as_one_over_the_width():
    turn = jnp.asarray([[0.0, -1.0], [1.0, 0.0]])
    assert attention.copying_score(turn) == 0
    assert attention.copying_score(jnp.zeros((3, 3))) == 0
    reader, writer = (jax.random.normal(key, (2, 5)) for key in jax.random.split(KEY))
    turns = jnp.linalg.qr(jax.random.normal(KEY, (1000, 5, 5)))[0]
    scores = jax.vmap(lambda turn: attention.composition_score(reader @ turn, writer.T))(turns)
    np.testing.assert_allclose(jnp.mean(scores**2), 1 / 5, rtol=0.08)


def test_uniform_attention_scores_as_counted():
    past = jnp.tril(jnp.ones((5, 5)))
    uniform = past / past.sum(axis=1, keepdims=True)
    expected = np.mean([1 / (i + 1) for i in range(1, 5)])
    np.testing.assert_allclose(attention.previous_token_score(uniform), expected, rtol=1e-6)
    tokens = jnp.eye(3)[jnp.asarray([0, 1, 0, 2, 0])]
    # At place 2 token 0 was followed once (place 1), at place 4 twice (1 and 3).
    np.testing.assert_allclose(
        attention.induction_score(uniform, tokens), (1 / 3 + 2 / 5) / 2, rtol=1e-6
    )
    assert jnp.isnan(attention.induction_score(uniform[:3, :3], jnp.eye(3)))


def plain_attention(params, tokens, heads, head_width):
    """Return the outputs, computed by loops over places, in NumPy."""
    params = jax.tree.map(np.asarray, params)
    x = [params["W_E"] @ t + p for t, p in zip(tokens, params["W_pos"], strict=True)]
    for layer in ("layer_0", "layer_1"):
        own, added = params[layer], [np.zeros_like(x[0]) for _ in x]
        for h in range(heads):
            q, k, v = ([own[name][h] @ each for each in x] for name in ("W_Q", "W_K", "W_V"))
            for i in range(len(x)):
                scores = np.array([q[i] @ k[j] for j in range(i + 1)]) / head_width**0.5
                weights = np.exp(scores - scores.max())
                weights = weights / weights.sum()
                added[i] += own["W_O"][h] @ sum(w * v[j] for j, w in enumerate(weights))
        x = [each + more for each, more in zip(x, added, strict=True)]
        x = [
            each + own["W_2"] @ np.maximum(own["W_1"] @ each + own["b_1"], 0) + own["b_2"]
            for each in x
        ]
    return np.stack([params["W_U"] @ each for each in x])


def test_the_model_is_its_equations():
    model = tm.AttentionOnly(layers=2, heads=3, width=7, head_width=2, neurons=4, outputs=5)
    tokens = jax.random.normal(KEY, (4, 6))
    params = jax.jit(model.init)(KEY, tokens)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(KEY, leaf.shape), params)
    expected = plain_attention(params, np.asarray(tokens), 3, 2)
    output = jax.jit(model.apply)({"params": params}, tokens)
    assert output.shape == (4, 5)
    np.testing.assert_allclose(output, expected, rtol=2e-4, atol=1e-5)
    sites = tm.activations(model, params, tokens)
    assert {name.removeprefix("layer_0/") for name in sites if "layer_1" not in name} == {
        "embedding", "query", "key", "value", "scores", "pattern", "z", "heads", "neurons",
        "residual", "output",
    }  # fmt: skip


@pytest.mark.parametrize("relative", [False, True])
def test_no_output_sees_the_future(relative):
    model = tm.AttentionOnly(layers=2, heads=2, width=5, head_width=3, relative=relative)
    tokens = jax.random.normal(KEY, (6, 4))
    params = jax.jit(model.init)(KEY, tokens)["params"]
    slopes = jax.jit(jax.jacobian(lambda tokens: model.apply({"params": params}, tokens)))(tokens)
    seen = jnp.abs(slopes).sum(axis=(1, 3))  # output place x input place
    np.testing.assert_array_equal(seen > 0, np.tril(np.ones((6, 6), bool)))


@pytest.mark.parametrize("relative", [False, True])
def test_a_sequence_of_other_length_gets_one_line(relative):
    model = tm.AttentionOnly(layers=1, heads=1, width=4, head_width=4, relative=relative)
    params = model.init(KEY, jnp.zeros((5, 3)))["params"]
    with pytest.raises(tm.InputError, match=r"has 6 positions, but .* are for 5: give sequences"):
        model.apply({"params": params}, jnp.zeros((6, 3)))


def test_a_trained_model_of_sequences_does_not_beat_the_exact_predictor():
    """The cell uses `train`, `NextToken`, `Activations` and sites on sequences."""
    features = tm.MarkovChains(2, 12)
    model = tm.AttentionOnly(layers=1, heads=1, width=4, head_width=4)
    trained = jax.jit(
        lambda key: tm.train(
            key, model, tm.NextToken(features), optimizer=optax.adam(0.02), steps=60, batch=64,
            evaluation=1024,
        )
    )(KEY)  # fmt: skip
    sequences_ = features.sample(jax.random.key(1), 1024)
    exact = jax.vmap(lambda s: sequences.next_token_loss(sequences.in_context_bigram(s), s))
    assert jnp.mean(exact(sequences_)) < trained.loss < np.log(2)
    site = tm.Activations(model, trained.params, features, "layer_0/z")
    assert site.sample(KEY, 7).shape == (7, 4)


def test_the_bigram_predictor_is_the_posterior_and_its_losses_are_those_known():
    """The entropy of a row and Laplace's rule of succession are known for Dirichlet(1) chains."""
    chains = tm.MarkovChains(3, 100).sample(KEY, 1000)

    @jax.jit
    def losses_of(chains):
        return {
            predict.__name__: jax.vmap(lambda s, p=predict: sequences.next_token_loss(p(s), s))(
                chains
            )
            for predict in (sequences.in_context_bigram, sequences.in_context_unigram)
        }

    losses = {name: np.mean(each) for name, each in losses_of(chains).items()}
    # Expectations over 100 tokens; three standard errors.
    assert losses["in_context_bigram"] < losses["in_context_unigram"] < np.log(3)
    np.testing.assert_allclose(losses["in_context_bigram"], 0.8877, atol=0.02)
    np.testing.assert_allclose(losses["in_context_unigram"], 1.0083, atol=0.02)
    rows = np.random.default_rng(0).dirichlet(np.ones(3), 20_000)
    entropy = -np.mean(np.sum(rows * np.log(np.maximum(rows, 1e-30)), axis=1))
    np.testing.assert_allclose(sequences.chain_entropy(3), entropy, atol=5e-3)
    short = jnp.eye(2)[jnp.asarray([0, 0, 1, 0])]
    expected = [[1 / 2, 1 / 2], [2 / 3, 1 / 3], [1 / 2, 1 / 2], [1 / 2, 1 / 2]]
    np.testing.assert_allclose(sequences.in_context_bigram(short), expected, rtol=1e-6)


def chain_probability(tokens, states):
    """The probability of a sequence: each row of its counts is a Dirichlet-multinomial draw."""
    counts = np.zeros((states, states), int)
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    rows = [
        math.factorial(states - 1) * math.prod(map(math.factorial, row))
        / math.factorial(states - 1 + sum(row))
        for row in counts.tolist()
    ]  # fmt: skip
    return math.prod(rows) / states


def test_the_exact_predictor_gives_every_sequence_its_probability():
    every = np.array(list(itertools.product(range(3), repeat=5)))
    exact = np.array([chain_probability(tokens, 3) for tokens in every])
    np.testing.assert_allclose(exact.sum(), 1)
    chains = jnp.eye(3)[every]
    losses = jax.vmap(lambda s: sequences.next_token_loss(sequences.in_context_bigram(s), s))
    np.testing.assert_allclose(jnp.exp(-losses(chains).sum(axis=1)) / 3, exact, rtol=1e-5)


@pytest.mark.parametrize("concentration", [1, jnp.ones(())])
def test_the_sampler_draws_every_sequence_with_its_probability(concentration):
    """The sampler has a faster way for a concentration that is known to be 1."""
    drawn = np.asarray(tm.MarkovChains(2, 4, concentration).sample(KEY, 20_000)).argmax(axis=2)
    every = np.array(list(itertools.product(range(2), repeat=4)))
    found = np.bincount(drawn @ [8, 4, 2, 1], minlength=16) / len(drawn)
    exact = np.array([chain_probability(tokens, 2) for tokens in every])
    errors = np.sqrt(exact / len(drawn))
    assert np.max(np.abs(found - exact) / errors) < 4


def test_sequences_have_the_statistics_that_they_name():
    chains = tm.MarkovChains(3, 5, concentration=1e-3).sample(KEY, 2000)
    np.testing.assert_array_equal(chains.sum(axis=2), 1)
    # Rows are nearly one-hot, and still every token is as likely as any other at each position.
    np.testing.assert_allclose(chains.mean(axis=0), 1 / 3, atol=0.04)
    repeated = tm.RepeatedTokens(4, 3, repeats=3).sample(KEY, 500)
    assert repeated.shape == (500, 9, 4)
    np.testing.assert_array_equal(repeated[:, :3], repeated[:, 3:6])
    np.testing.assert_array_equal(repeated[:, :3], repeated[:, 6:])
    table = ((0, 2), (1, 0), (3, 3))
    trigrams = tm.SkipTrigrams(table, num_noise=2, length=6)
    assert trigrams.num_features == 3 + 2 + 2 + 4
    tokens = np.asarray(trigrams.sample(KEY, 400)).argmax(axis=2)
    for row in tokens:
        (source,) = row[row < 3]  # one source
        assert 3 <= row[-2] < 5
        assert row[-1] == 7 + table[source][row[-2] - 3]
        assert all(5 <= token < 7 for token in row[:-2] if token != source)
    places = (tokens[:, :4] < 3).mean(axis=0)
    np.testing.assert_allclose(places, 1 / 4, atol=0.09)  # four standard errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tm.MarkovChains(3, 5, 0.0).sample(KEY, 2), "concentration is 0"),
        (lambda: tm.MarkovChains(1, 5).sample(KEY, 2), "num_features is 1"),
        (lambda: tm.RepeatedTokens(3, 4, repeats=1).sample(KEY, 2), "repeats is 1"),
        (lambda: tm.SkipTrigrams(((0, 1),), 1, 2).sample(KEY, 2), "length is 2"),
        (lambda: tm.SkipTrigrams(((0, -1),), 1, 4).sample(KEY, 2), "sources x queries"),
        (
            lambda: tm.NextToken(tm.MarkovChains(3, 5), first=5).loss(
                jnp.zeros((5, 3)), jnp.zeros((5, 3))
            ),
            "first is 5: give the index of a token after the first, up to 4",
        ),
        (
            lambda: tm.NextToken(tm.MarkovChains(3, 5)).loss(jnp.zeros((5, 3)), jnp.zeros((5, 2))),
            "one logit for each token",
        ),
    ],
)
def test_bad_input_gets_one_line(make, message):
    with pytest.raises(tm.InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_next_token_is_the_cross_entropy_of_a_uniform_guess():
    tokens = tm.RepeatedTokens(5, 3).sample(KEY, 1)[0]
    task = tm.NextToken(tm.RepeatedTokens(5, 3))
    np.testing.assert_allclose(task.loss(tokens, jnp.ones((6, 5))), np.log(5), rtol=1e-6)
