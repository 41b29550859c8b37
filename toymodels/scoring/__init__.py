"""Scores of methods on trained models whose features are known.

ladder      the models: from no superposition to much, with what may be read of each
method      the score of any method, from chance (0) to the best that is possible (1)
bench       the models: one for each of several distributions of features
dictionary  the scores of any dictionary, as one table
"""

from toymodels.scoring.bench import Bench
from toymodels.scoring.dictionary import (
    Dictionary,
    DictionaryScores,
    dictionary_scores,
    score_dictionary,
)
from toymodels.scoring.ladder import Ladder
from toymodels.scoring.method import Seen, score_method

__all__ = [
    "Bench",
    "Dictionary",
    "DictionaryScores",
    "Ladder",
    "Seen",
    "dictionary_scores",
    "score_dictionary",
    "score_method",
]
