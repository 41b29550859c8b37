"""The error that is raised when a value from the user cannot be used."""


class InputError(ValueError):
    """An error whose message names the wrong value and the remedy in one line."""
