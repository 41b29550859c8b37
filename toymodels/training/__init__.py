"""Training and evaluation of one model, as pure functions of a key."""
