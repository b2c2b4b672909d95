"""Declared preprocessing: fitted once on the rows that found a lineage, stored with every version.

Rows, memory and holdouts keep raw columns, text and category names among them; a preprocessor makes
model inputs of them where pools become tensors, alike in training, evaluation and prediction.
"""

from perennial.data.preprocess.base import (
    Preprocessor,
    check_same,
    describe,
    fitted,
    restored,
)
from perennial.data.preprocess.lists import Lists
from perennial.data.preprocess.sequence import Sequence
from perennial.data.preprocess.table import Table
from perennial.data.preprocess.text import Text

__all__ = [
    "Lists",
    "Preprocessor",
    "Sequence",
    "Table",
    "Text",
    "check_same",
    "describe",
    "fitted",
    "restored",
]
