"""Scores of methods on trained models whose features are known.

ladder   the models: from no superposition to much, with what may be read of each
method   the score of any method, from chance (0) to the best that is possible (1)
"""

from toymodels.scoring.ladder import Ladder
from toymodels.scoring.method import Seen, score_method

__all__ = ["Ladder", "Seen", "score_method"]
