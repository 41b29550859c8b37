"""What to raise when a value from the user cannot be used."""


class InputError(ValueError):
    """The message names the value and the remedy, in one line."""
