"""Measurements: pure functions of weights or activations of ONE model, one subject a file."""
