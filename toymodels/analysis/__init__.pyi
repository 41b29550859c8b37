from . import geometry, learning_coefficient, phases, polytopes

__all__ = ["geometry", "learning_coefficient", "phases", "polytopes"]
