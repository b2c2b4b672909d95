"""By the champion's own errors, where labels have come, and by estimates before they come."""

from __future__ import annotations

from datetime import timedelta

from perennial.errors import require_setting
from perennial.monitoring.triggers.base import Firing, Situation
from perennial.monitoring.triggers.schedule import require_span

_YEAR = timedelta(days=365.25)


class Performance:
    """Due where the champion does worse than on its held-out rows.

    See `perennial.monitoring.performance`. Rows that came before the last decision are not watched
    again: it answered them.

    Args:
        false_alarms_per_year: How many without any change are all right, above 0.
        every: How often it is asked, as ``1d``; asked less often it gives fewer false alarms.
        smallest_drop: Of the mean score, at least 0: what is smaller is no alarm.
        seed: Of simulations.

    Raises:
        ConfigError: A setting is out of range.
    """

    kind = "performance"
    needs = frozenset({"errors"})

    def __init__(
        self,
        *,
        false_alarms_per_year: float = 1.0,
        every: str = "1d",
        smallest_drop: float = 0.01,
        seed: int = 0,
    ) -> None:
        rate, drop = false_alarms_per_year, smallest_drop
        require_setting(rate > 0, "trigger.false_alarms_per_year", rate, "above 0")
        require_setting(drop >= 0, "trigger.smallest_drop", drop, "at least 0")
        self._windows = _YEAR / require_span(every, where="trigger.every")
        self._rate = rate
        self._drop = drop
        self._seed = seed

    def early(self, situation: Situation) -> None:
        """Nothing before there are rows."""
        return

    def ask(self, situation: Situation) -> Firing:
        """Due where a detector saw errors rise, or an estimate is low.

        Raises:
            ConfigError: river is missing, or the clock reads a time before the last cycle.
            DataError: There is nothing to look at.
        """
        from perennial.monitoring.performance import examine_performance

        held_out, records = situation.errors()
        last = situation.last
        found = examine_performance(
            held_out,
            records,
            false_alarms_per_year=self._rate,
            smallest_drop=self._drop,
            windows_per_year=self._windows,
            since=None if last is None else last.decided_at,
            seed=self._seed,
        )
        return Firing(
            kind=self.kind, due=found.alarm, reason=found.reason, evidence=found.to_dict()
        )
