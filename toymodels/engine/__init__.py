"""The engine, which turns a function of one model into one fast program.

The engine knows no model and no sweep. It takes a loss of ONE example and the sampler of a
batch, and returns a training step that XLA compiles to one loop over the batch. Take a model
with two features and one hidden dimension, whose weights are the vector w:

    def loss(w, x):
        return jnp.sum((x - w * jnp.dot(w, x)) ** 2)

    def sample(key, density):
        key_active, key_value = jax.random.split(key)
        active = jax.random.uniform(key_active, (4, 2)) < density
        return jnp.where(active, jax.random.uniform(key_value, (4, 2)), 0.0)

1. **What is traced.** `fuse` traces the loss of one example:

       c = dot_general a b      the hidden activation w . x
       d = mul a c
       e = sub b d              the error of each feature
       f = integer_pow[y=2] e
       g = reduce_sum f         the loss

   `choices` then rewrites maxima and minima, so that rounding cannot lose their gradients.

2. **What is drawn once.** `draws.split` cuts the sampler in two. `draw` holds all that the key
   alone decides: here both arrays of uniform numbers. `finish` holds the rest: the comparison
   with the density and the `where`. Cells of a sweep with equal seeds share one `draw` on a CPU,
   and each cell has its own `finish`. `keys` writes the generator of random words in plain
   operations, so that XLA can compile it together with what uses the words.

3. **What is fused.** JAX differentiates the traced loss, and `elements` takes every array in
   the program apart: w is two numbers, x is two vectors over the batch. The outputs are the
   loss and two partial derivatives. `loop` adds them up in one `lax.reduce`. XLA compiles this
   program to one loop over the examples with three sums in registers. A loss with an
   unknown operation, or with too many sums or operations, takes the ordinary path instead:
   `columns` evaluates it for all examples with matrix products, and on a CPU the models of a
   sweep run one after another. `fuse.explain` says which path a loss takes. On a card, `kernel`
   can make one kernel of the loop for all models, if `examples` can make each example alone.

4. **What runs.** A sweep maps the step over the lanes of a block with `jax.vmap`, repeats it with
   `lax.scan`, and compiles the whole with the options of `compiling`. `lanes` computes the losses
   of a block in turns, and computes no lane that only repeats another. `devices` and `blas` make
   the numbers independent of the number of cores, and `xla_flags` and `products` independent of
   the lane. `decompositions` keeps decompositions of many matrices from a deadlock, `sums` adds
   up many numbers without drift, and `marks` tells the sweep where to look for parameters that
   are not finite. `memory_maps` counts how many devices have room for a program.

`interpreter` evaluates a traced program again with a change, and `programs` answers questions
about traced programs. `cards` compiles a program for a graphics card that need not be there, and
says what bounds its speed.
"""
