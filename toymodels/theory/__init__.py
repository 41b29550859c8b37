"""What training should find, in closed form: pure functions of numbers, no model, no samples.

A quantity has the name of its measurement in `toymodels.analysis`.
"""
