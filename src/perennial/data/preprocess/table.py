"""Tables: numbers standardised and gaps imputed, categories to positions in fitted vocabularies.

Shapes: N rows, P numerical and Q categorical columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.data.columns import Column
from perennial.data.preprocess.base import Features, as_text
from perennial.errors import ConfigError, DataError

VOCABULARIES = "vocabularies.json"
UNKNOWN = 0


class Table:
    """Columns of a table to ``numerical`` (N, P) float32 and ``categorical`` (N, Q) int64.

    A missing number becomes the median of the founding training rows; then, unless ``standardise``
    is off, each column's mean is taken off and it is divided by its standard deviation. A category
    becomes its position, from 1, in the alphabet of those rows' values; 0 is unknown: a value never
    seen, seen too seldom, or missing.

    Args:
        numerical: Columns of numbers; None takes what ``categorical`` does not name, or by type.
        categorical: Columns of categories, text or whole numbers; None takes what ``numerical``
            does not name, or, where neither is given, columns of text.
        standardise: Whether numbers get mean 0 and standard deviation 1.
        minimum_rows: A category of fewer training rows counts as unknown; above 1 a model learns
            what unknown means, and its vocabularies stay small.

    Raises:
        ConfigError: A column is named twice, none is, or ``minimum_rows`` is below 1.
    """

    def __init__(
        self,
        *,
        numerical: Sequence[str] | None = None,
        categorical: Sequence[str] | None = None,
        standardise: bool = True,
        minimum_rows: int = 1,
    ) -> None:
        self.numerical = _names(numerical)
        self.categorical = _names(categorical)
        self.standardise = standardise
        self.minimum_rows = minimum_rows
        self._refuse_odd()
        self._numbers: dict[str, dict[str, float]] = {}
        self._vocabularies: dict[str, npt.NDArray[Any]] = {}
        self._fitted = False

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Both lists, where both are given."""
        if self.numerical is None or self.categorical is None:
            return None
        return (*self.numerical, *self.categorical)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "numerical": None if self.numerical is None else list(self.numerical),
            "categorical": None if self.categorical is None else list(self.categorical),
            "standardise": self.standardise,
            "minimum_rows": self.minimum_rows,
        }

    def kind(self, column: str, nature: str) -> str:
        """``number`` or ``category``, by name or else by nature; ``fixed`` for what is neither."""
        if column in (self.numerical or ()):
            return "number"
        if column in (self.categorical or ()):
            return "category"
        if nature == "other" or (self.numerical is not None and self.categorical is not None):
            return "fixed"
        if self.numerical is not None:
            return "category"
        if self.categorical is not None or nature == "number":
            return "number"
        return "category"

    def fit(self, features: Features) -> None:
        """Medians, means, deviations and vocabularies of training rows.

        Raises:
            DataError: There is no row, or a numerical column has no value at all.
        """
        kinds = {name: self.kind(name, _nature(values)) for name, values in features.items()}
        if not any(len(values) for values in features.values()):
            raise DataError(
                "There are no training rows to fit medians and vocabularies on.",
                where="data.history, data.preprocess",
                mend="give data.history=PATH; a checkpoint with preprocessing of its own takes "
                "rows that were preprocessed, without data.preprocess",
            )
        self._numbers = {
            name: self._measured(name, values)
            for name, values in features.items()
            if kinds[name] == "number"
        }
        self._vocabularies = {
            name: self._vocabulary(values)
            for name, values in features.items()
            if kinds[name] == "category"
        }
        self._fitted = True

    def knowing(self, label_names: Sequence[str]) -> Table:
        """Itself: fitted vocabularies stay as they are."""
        return self

    def apply(self, features: Features) -> dict[str, Column]:
        """``numerical`` and ``categorical``, where there are any, then columns of fixed shape."""
        assert self._fitted, "fit or load comes first"
        found: dict[str, Column] = {}
        if self._numbers:
            numbers = [self._number(name, features[name]) for name in self._numbers]
            found["numerical"] = np.stack(numbers, axis=1)
        if self._vocabularies:
            places = [self._position(name, features[name]) for name in self._vocabularies]
            found["categorical"] = np.stack(places, axis=1)
        own = {*self._numbers, *self._vocabularies}
        return found | {name: values for name, values in features.items() if name not in own}

    def notes(self, features: Features, *, name: str) -> list[str]:
        """Rows with gaps, or with a category that the vocabulary lacks."""
        told = []
        for column in self._numbers:
            if gaps := int(np.isnan(features[column]).sum()):
                told.append(f"{name}: {gaps} rows without {column}, filled by its median")
        rare = "" if self.minimum_rows == 1 else f", or in fewer than {self.minimum_rows} rows,"
        for column in self._vocabularies:
            values = as_text(features[column])
            if gaps := int((values == "").sum()):
                told.append(f"{name}: {gaps} rows without {column}, unknown to the model")
            lacking = (self._position(column, values) == UNKNOWN) & (values != "")
            if count := int(lacking.sum()):
                told.append(f"{name}: {count} rows with a {column} never seen{rare} in founding")
        return told

    def fills(self) -> dict[str, Any]:
        """``numerical``: P; ``cardinalities``: positions of each categorical column, Q numbers."""
        return {
            "numerical": len(self._numbers),
            "cardinalities": [len(names) + 1 for names in self._vocabularies.values()],
        }

    def state(self) -> dict[str, Any]:
        """Of each numerical column its median, mean and scale."""
        return {"numerical": {name: dict(values) for name, values in self._numbers.items()}}

    def files(self) -> dict[str, bytes]:
        """Vocabularies, once they are fitted."""
        if not self._fitted:
            return {}
        names = {name: values.tolist() for name, values in self._vocabularies.items()}
        return {VOCABULARIES: json.dumps(names, ensure_ascii=False, indent=0).encode()}

    def load(self, state: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Take what was fitted before.

        Raises:
            ValueError: It is not what `state` and `files` give.
        """
        self._numbers = {
            name: _as_fitted(name, given) for name, given in state["numerical"].items()
        }
        names = json.loads(files[VOCABULARIES])
        if not all(isinstance(one, str) for values in names.values() for one in values):
            raise ValueError(f"{VOCABULARIES} holds something else than names")
        self._vocabularies = {name: _sorted(values) for name, values in names.items()}
        self._fitted = True

    def _measured(self, name: str, values: Column) -> dict[str, float]:
        present = values[~np.isnan(values)].astype(np.float64)
        if not len(present):
            raise DataError(
                "The column has no value in any training row.",
                where=f"data.history, column {name!r}",
                mend="leave it out of data.features, or name it under data.preprocess.categorical",
            )
        # a constant column's own deviation is 0, or what rounding leaves of it
        scale = 0.0 if present.min() == present.max() else float(present.std())
        return {
            "median": float(np.median(present)),
            "mean": float(present.mean()),
            "scale": scale or 1.0,
        }

    def _number(self, name: str, values: Column) -> npt.NDArray[np.float32]:
        fitted = self._numbers[name]
        filled = np.where(np.isnan(values), fitted["median"], values.astype(np.float64))
        if self.standardise:
            filled = (filled - fitted["mean"]) / fitted["scale"]
        # what standardising makes too large for float32 is as far off as that can be
        most = float(np.finfo(np.float32).max)
        return np.clip(filled, -most, most).astype(np.float32)

    def _vocabulary(self, values: Column) -> npt.NDArray[Any]:
        names, counts = np.unique(as_text(values), return_counts=True)
        kept = names[(counts >= self.minimum_rows) & (names != "")]
        return _sorted(kept.tolist())

    def _position(self, name: str, values: Column) -> npt.NDArray[np.int64]:
        # not by searchsorted: between two arrays of variable-width strings NumPy 2.4 compares what
        # is longer than 15 bytes with the wrong memory
        known = {one: place for place, one in enumerate(self._vocabularies[name].tolist(), 1)}
        distinct, inverse = np.unique(as_text(values), return_inverse=True)
        places = [known.get(one, UNKNOWN) for one in distinct.tolist()]
        return np.array(places, dtype=np.int64)[inverse]

    def _refuse_odd(self) -> None:
        named = [*(self.numerical or ()), *(self.categorical or ())]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ConfigError(
                f"{twice[0]!r} is named twice.",
                where="data.preprocess.numerical, data.preprocess.categorical",
                mend="name each column once",
            )
        if self.columns == ():
            raise ConfigError(
                "No column is named.",
                where="data.preprocess.numerical, data.preprocess.categorical",
                mend="name some, or write null to take columns by their type",
            )
        if self.minimum_rows < 1:
            raise ConfigError(
                f"A category cannot need {self.minimum_rows} rows.",
                where="data.preprocess.minimum_rows",
                mend="use 1 or more",
            )


def _names(given: Sequence[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    return (given,) if isinstance(given, str) else tuple(given)


def _as_fitted(name: str, given: Mapping[str, Any]) -> dict[str, float]:
    found = {key: float(given[key]) for key in ("median", "mean", "scale")}
    if not np.isfinite(list(found.values())).all() or found["scale"] <= 0:
        raise ValueError(f"{found} cannot be the measures of {name!r}")
    return found


def _sorted(names: Sequence[str]) -> npt.NDArray[Any]:
    return np.sort(as_text(np.array(list(names), dtype=np.str_)))


def _nature(values: Column) -> str:
    if values.dtype.kind in "TU":
        return "text"
    return "number" if values.ndim == 1 else "other"
