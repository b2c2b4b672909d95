"""By the inputs, and by what the model makes of them: due where they have moved."""

from __future__ import annotations

from collections.abc import Sequence

from perennial.monitoring.triggers.base import Firing, Situation
from perennial.monitoring.triggers.schedule import require_span


class Drift:
    """Due where the new rows have moved from those that the champion was made and judged from.

    Columns, all of them together, the model's features and its predictions are compared, see
    `perennial.monitoring.drift`; labels are not. How often chance alone makes a cycle due is set,
    and the thresholds follow.

    Args:
        false_alarms_per_year: How many without any change are all right, above 0.
        every: How often it is asked, as ``1d``; asked less often it gives fewer false alarms.
        minimum_effect: How far a column has to move to count, in standard deviations or as
            Cramér's V, from 0 and below 1.
        tests: Of all columns together, and of the model's features: ``mmd``, ``classifier``; none
            looks at columns and predictions alone.
        permutations: Of MMD, at least 100.
        model: Whether the model is run on the rows.
        draws: Divisions of the reference that give the threshold, at least 100.
        seed: Of them.

    Raises:
        ConfigError: A setting is out of range.
    """

    kind = "drift"
    needs = frozenset({"reference"})

    def __init__(
        self,
        *,
        false_alarms_per_year: float = 1.0,
        every: str = "1d",
        minimum_effect: float = 0.1,
        tests: Sequence[str] = ("mmd",),
        permutations: int = 500,
        model: bool = True,
        draws: int = 400,
        seed: int = 0,
    ) -> None:
        from perennial.monitoring.calibration import Calibration

        self._calibration = Calibration(
            false_alarms_per_year=false_alarms_per_year,
            every=require_span(every, where="trigger.every"),
            minimum_effect=minimum_effect,
            draws=draws,
            seed=seed,
        )
        self._tests = tuple(tests)
        self._permutations = permutations
        self._model = model

    def early(self, situation: Situation) -> None:
        """Nothing before there are rows."""
        return

    def ask(self, situation: Situation) -> Firing:
        """Due where something moved; the evidence names what, with its test.

        Raises:
            RegistryError: The champion carries no reference.
            DataError: A column is missing or of another type, or there are too few rows.
        """
        from perennial.monitoring.drift import examine

        found = examine(
            situation.reference(),
            situation.window(),
            calibration=self._calibration,
            represent=situation.represent() if self._model else None,
            device=situation.device,
            tests=self._tests,
            permutations=self._permutations,
        )
        moved = [shift.to_dict() for shift in found.moved]
        return Firing(
            kind=self.kind,
            due=found.alarm,
            reason=found.nameless,
            evidence={**found.to_dict(), "reason": found.nameless, "shifts": moved},
        )
