"""How a function of one model becomes one fast program."""
