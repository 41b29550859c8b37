from . import geometry, learning_coefficient, neurons, phases, polytopes, superposition

__all__ = ["geometry", "learning_coefficient", "neurons", "phases", "polytopes", "superposition"]
