"""`sweep`: a pure function of a key and numbers at every point of a grid, as a labelled dataset.

The function is called a *cell*. It takes the key of a seed and one number for each axis, and it
returns named arrays. The way of one number of an axis to the `xarray.Dataset`, and back from a
store:

1. `requests`: `check_request` checks all names and numbers that the user gave. `grids`: `Grid`
   lists the numbers of the axes at every point of their product.
2. `variants`: each combination of the static axes is a *variant* of the cell, with a program of
   its own. `cells`: `trace` calls the cell with traced numbers and checks that it is pure.
   `check_numbers` makes the cell's own checks for the numbers of every point. `failures`
   explains, with the line of the cell, why a cell cannot be traced.
3. `layouts`: `layout` names the dimensions of the outputs before anything runs. `datasets`:
   `empty_outputs` makes room for the outputs of all cells, which are seeds x points.
4. `program`: `compile_program` compiles the cell for a *block* of fixed width, in which each lane
   is one cell. It also says in text what the bits of the outputs depend on. `executables` loads
   the program on each core or device that is to help.
5. `stored`: this text, the seed and the numbers of a cell are its key in the store. Cells that
   the store holds are read from there; only the others run.
6. `blocks`: `run` cuts the seeds and numbers of the remaining cells into blocks and runs them
   side by side. As soon as a block has finished, its outputs are filled in and stored, and
   `progress` shows how far the sweep is.
7. `datasets`: `assemble` puts the outputs of all cells in the order of the axes, labels them, and
   turns cells that diverged into NaN.

With a folder, `parts` cuts the grid into parts, does 3 to 7 for each, and keeps each in a file.

`sweep` calls these stages in this order. Two modules go back from a dataset to models: `results`
chooses the best seed and returns the parameters of a model, and `measures` calls a function of
one model with every model. `padding` takes off the NaN that fill up models of different sizes.
`watching` lets a command see the requests of sweeps without a run, and `costs` compiles the
programs of such a request for a card.
"""
