"""A function of one model at every point of a grid, as one labelled dataset."""
