from . import geometry, learning_coefficient, neurons, phases, polytopes

__all__ = ["geometry", "learning_coefficient", "neurons", "phases", "polytopes"]
