"""Have the inputs moved, or what the model makes of them, since a version was made?

Shapes: N rows of the sample, B draws, M tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perennial.errors import DataError, require_setting
from perennial.monitoring.calibration import (
    LEAST_ROWS,
    PHASES,
    Calibration,
    clusters,
    stretches,
    tiles,
    vouched,
)
from perennial.monitoring.columns import (
    CategoryColumn,
    CategoryStream,
    Measured,
    NumberColumn,
    NumberStream,
)
from perennial.monitoring.design import Design
from perennial.monitoring.findings import Findings, Shift
from perennial.monitoring.joint import TESTS, Vectors
from perennial.monitoring.reference import LEAST, Reference
from perennial.monitoring.window import Chunk, Features, Sampler, Window
from perennial.statistics.multiplicity import benjamini_hochberg
from perennial.statistics.tail import tail_threshold
from perennial.types import Booleans, Floats

# rows of either side that tests of all columns at once look at
JOINT_ROWS = 2000
NUMBERS = ("number", "length", "mean")


@dataclass(frozen=True)
class Represented:
    """What a model makes of N rows.

    Attributes:
        vectors: What enters its output layer (N, D), or None where there is no such layer.
        prediction: Predicted class, as text (N,), or number (N,); None where it predicts neither.
        confidence: Probability of the predicted class (N,), or None.
    """

    vectors: Floats | None
    prediction: npt.NDArray[Any] | None = None
    confidence: Floats | None = None


Represent = Callable[[Features], Represented]


class Examiner:
    """A reference, ready to hold windows against.

    Args:
        reference: What a version carries.
        calibration: What an alarm takes.
        represent: Runs the version's model on raw columns. Its features, its predictions and their
            confidence are then compared too, with those of the holdout rows: of the rows that it
            was trained on it is surer than of any window.
        tests: Of all columns at once, ``mmd`` and ``classifier``; none looks at columns alone.
        permutations: Of MMD, at least 100.
        device: Where kernels are computed.
        workers: Threads that share the columns; None for as many as there are cores.

    Raises:
        ConfigError: A setting is out of range.
        DataError: The reference has too few rows.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        calibration: Calibration,
        represent: Represent | None = None,
        tests: tuple[str, ...] = ("mmd",),
        permutations: int = 500,
        device: torch.device | str = "cpu",
        workers: int | None = None,
    ) -> None:
        require_setting(set(tests) <= set(TESTS), "trigger.tests", list(tests), "mmd, classifier")
        require_setting(permutations >= 100, "trigger.permutations", permutations, "at least 100")
        if len(reference) < LEAST:
            raise DataError(
                f"The reference of {reference.version} has {len(reference)} rows, and {LEAST} are "
                "the fewest that say anything.",
                where=reference.version,
                mend="retrain on more rows; data.reference_rows bounds what a version keeps",
            )
        self.reference = reference
        self.calibration = calibration
        self._represent = represent
        self._tests = tests
        self._permutations = permutations
        self._device = torch.device(device)
        self._workers = workers or len(os.sched_getaffinity(0))
        self._columns = {column: _column(reference, column) for column in reference.columns}
        self._pool = self._chosen()
        self._vectors: list[Vectors] = []
        self._predicted: list[NumberColumn | CategoryColumn] = []
        self._design = Design(reference)
        self._prepare()
        self._drawn: dict[tuple[int, int], Floats] = {}

    @property
    def columns(self) -> Mapping[str, NumberColumn | CategoryColumn]:
        """Feature column to its tests."""
        return self._columns

    @property
    def predicted(self) -> Mapping[str, NumberColumn | CategoryColumn]:
        """The tests of what the model says: its ``prediction`` and ``confidence``."""
        return {one.name: one for one in self._predicted}

    def examine(self, window: Window) -> Findings:
        """Hold a window against the reference, in one pass.

        Raises:
            DataError: A column is missing, or of another type; or there are too few rows.
        """
        streams = {name: column.start() for name, column in self._columns.items()}
        sampler = Sampler(JOINT_ROWS, self.calibration.seed)
        rows = 0
        with ThreadPoolExecutor(self._workers) as threads:
            each = threads.map if self._workers > 1 else map
            for chunk in window:
                rows += len(chunk)
                list(each(partial(self._add, chunk), streams, streams.values()))
                if self._vectors or self._predicted:
                    sampler.add(chunk)
        if rows < LEAST_ROWS:
            raise DataError(
                f"The window has {rows} rows; {LEAST_ROWS} are the fewest that say anything.",
                where="the window",
                mend="look at a longer stretch of time",
            )
        count, joint = self._counts(rows)
        measured = [
            ("input", one) for name, stream in streams.items() for one in stream.tests(count=count)
        ]
        if self._vectors or self._predicted:
            measured += self._together(sampler.features(joint), joint)
        notes = [f"{name}: {note}" for name, s in streams.items() if (note := s.note())]
        return self._found(measured, rows, count, joint, [*notes, *self._notes(rows, count)])

    def _add(self, chunk: Chunk, name: str, stream: NumberStream | CategoryStream) -> None:
        if isinstance(stream, NumberStream):
            stream.add(chunk.numbers(name))
        else:
            stream.add(chunk.counts(name))

    def _chosen(self) -> npt.NDArray[np.int64]:
        """Rows of the sample that tests of all columns look at."""
        held = np.flatnonzero(self.reference.role == "holdout")
        use_held = self._represent is not None and len(held) >= LEAST
        return (held if use_held else np.arange(len(self.reference)))[:JOINT_ROWS]

    def _prepare(self) -> None:
        features = {n: v[self._pool] for n, v in self.reference.rows.features.items()}
        if self._design.width and self._tests:
            self._vectors.append(self._of("rows", self._design.vectors(features)))
        if self._represent is None:
            return
        found = self._represent(features)
        if found.vectors is not None and self._tests:
            self._vectors.append(self._of("features", found.vectors))
        if found.prediction is not None:
            self._predicted.append(_predicted("prediction", found.prediction))
        if found.confidence is not None:
            self._predicted.append(_predicted("confidence", found.confidence))

    def _of(self, name: str, vectors: Floats) -> Vectors:
        return Vectors(
            name,
            vectors,
            tests=self._tests,
            count=self._permutations,
            seed=self.calibration.seed,
            device=self._device,
        )

    def _counts(self, rows: int) -> tuple[int, int]:
        """Rows that a window counts for, of columns and of tests of all of them."""
        whole, has_time = self.reference, self.reference.has_time
        total = sum(whole.total.values())
        count = vouched(rows, sampled=len(whole), total=total, has_time=has_time)
        pooled = len(self._pool)
        joint = vouched(rows, sampled=pooled, total=self._behind(), has_time=has_time)
        return count, min(joint, JOINT_ROWS)

    def _behind(self) -> int:
        """Rows that those stand for which tests of all columns look at."""
        total = self.reference.total
        held = self.reference.role == "holdout"
        only_held = held[self._pool].all() and not held.all()
        return total["holdout"] if only_held else sum(total.values())

    def _together(self, features: Features, count: int) -> list[tuple[str, Measured]]:
        found: list[tuple[str, Measured]] = []
        for vectors in self._vectors:
            if vectors.name == "rows":
                found += [("rows", one) for one in vectors.measured(self._design.vectors(features))]
        if self._represent is None:
            return found
        made = self._represent(features)
        for vectors in self._vectors:
            if vectors.name == "features" and made.vectors is not None:
                found += [("features", one) for one in vectors.measured(made.vectors)]
        values = {"prediction": made.prediction, "confidence": made.confidence}
        for column in self._predicted:
            stream = column.start()
            now = values[column.name]
            assert now is not None, "a model gives of each window what it gave of the reference"
            if isinstance(stream, NumberStream):
                stream.add(np.asarray(now, np.float64))
            else:
                names, counts = np.unique(now, return_counts=True)
                stream.add(dict(zip(names.tolist(), counts.tolist(), strict=True)))
            found += [("prediction", one) for one in stream.tests(count=count)]
        return found

    def _found(
        self,
        measured: list[tuple[str, Measured]],
        rows: int,
        count: int,
        joint: int,
        notes: list[str],
    ) -> Findings:
        floor = self.calibration.minimum_effect
        q = benjamini_hochberg([one.p for _, one in measured])
        counted = [
            one.alarm_p if one.test in TESTS or one.effect >= floor else 1.0 for _, one in measured
        ]
        alarm_q = benjamini_hochberg(counted)
        threshold = self.threshold(rows, tests=len(measured))
        shifts = tuple(
            Shift(
                of=of, measured=one, q=float(q[i]), alarm_q=float(alarm_q[i]), threshold=threshold
            )
            for i, (of, one) in enumerate(measured)
        )
        return Findings(
            alarm=bool((alarm_q <= threshold).any()),
            overall=float(alarm_q.min()),
            threshold=threshold,
            probability=self.calibration.probability,
            shifts=shifts,
            rows=rows,
            counted_rows=count,
            joint_rows=joint,
            reference_rows=len(self.reference),
            version=self.reference.version,
            notes=tuple(notes),
        )

    def _notes(self, rows: int, count: int) -> list[str]:
        found = []
        if count < rows:
            found.append(
                f"the {rows} rows of the window count for {count}: a stretch of the reference of "
                "as many rows is so long in its sample (data.reference_rows)"
            )
        if self._represent is not None and not (self.reference.role[self._pool] == "holdout").all():
            found.append(
                "the reference has too few holdout rows, so that predictions are compared with "
                "those on training rows, of which a model is surer"
            )
        return found

    def threshold(self, rows: int, *, tests: int) -> float:
        """At or below which smallest adjusted p-value a window of so many rows raises the alarm.

        Args:
            rows: Of the window.
            tests: How many there are.
        """
        p_values = self._under_no_shift(rows)
        missing = tests - p_values.shape[1]
        if missing > 0:
            p_values = np.concatenate([p_values, np.ones((len(p_values), missing))], axis=1)
        simes = benjamini_hochberg(p_values).min(axis=1)
        # nothing says at which hour windows begin, so the strictest beginning decides
        parts = np.split(simes, PHASES if self.reference.has_time else 1)
        return min(tail_threshold(part, self.calibration.probability) for part in parts)

    def _under_no_shift(self, rows: int) -> Floats:
        """P-values (B, M) of divisions of the reference."""
        count, joint = self._counts(rows)
        size = min(count, len(self.reference) // 2)
        pooled = max(min(joint, len(self._pool) // 2), 2)
        if (size, pooled) not in self._drawn:
            self._drawn[size, pooled] = self._draw(size, pooled)
        return self._drawn[size, pooled]

    def _draw(self, size: int, pooled: int) -> Floats:
        generator = np.random.default_rng(self.calibration.seed)
        whole, draws = len(self.reference), self.calibration.draws
        count = min(tiles(whole, size, draws=draws), tiles(len(self._pool), pooled, draws=draws))
        masks = self._masks(np.arange(whole), size, count, generator)
        found = [one for column in self._columns.values() for one in column.drawn(masks)]
        if self._vectors or self._predicted:
            masks = self._masks(self._pool, pooled, count, generator)
            for part in (*self._predicted, *self._vectors):
                found += part.drawn(masks)
        return np.stack(found, axis=1)

    def _masks(
        self, index: npt.NDArray[np.int64], size: int, count: int, generator: np.random.Generator
    ) -> Booleans:
        if self.reference.has_time:
            order = self.reference.order[index]
            return stretches(order, size=size, count=count, generator=generator)
        cluster = self.reference.rows.cluster[index]
        return clusters(cluster, size=size, draws=self.calibration.draws, generator=generator)


def examine(
    reference: Reference,
    window: Window,
    *,
    calibration: Calibration,
    represent: Represent | None = None,
    **settings: Any,
) -> Findings:
    """Hold one window against a reference; see `Examiner`, which is cheaper for several."""
    made = Examiner(reference, calibration=calibration, represent=represent, **settings)
    return made.examine(window)


def _column(reference: Reference, name: str) -> NumberColumn | CategoryColumn:
    if reference.kind(name) in NUMBERS:
        return NumberColumn(name, reference.numbers(name))
    known: Mapping[str, int] = reference.known.get(name, {})
    return CategoryColumn(name, reference.rows.features[name], known)


def _predicted(name: str, values: npt.NDArray[Any]) -> NumberColumn | CategoryColumn:
    if values.dtype.kind in "TU":
        return CategoryColumn(name, values)
    return NumberColumn(name, np.asarray(values, np.float64))
