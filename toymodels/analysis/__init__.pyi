from . import geometry, learning_coefficient, phases

__all__ = ["geometry", "learning_coefficient", "phases"]
