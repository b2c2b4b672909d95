"""By the clock: a cron expression or an interval, held against the lineage's last cycle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from perennial import clock
from perennial.errors import ConfigError
from perennial.monitoring.triggers.base import Firing, Situation, plain, shown

# of an interval: a scheduler calls when the last cycle began, and its decision came later
_SLACK = 20
_CRON = "minute, hour, day of month, month and day of week, such as '0 3 * * 1'"


class Schedule:
    """Due where the schedule has come since the last decided cycle, once for all times missed.

    A rejected cycle was decided as well; one that failed was not, and stays due.

    Args:
        cron: Five fields: minute, hour, day of month, month, day of week. A time that the change to
            summer time leaves out comes right after it; one that comes twice is taken once.
        every: Time since the last decision, as ``12h``, ``7d`` or ``2w``, less a twentieth: a
            scheduler that calls every seven days calls when the last cycle began, and a decision
            is later than that by what training takes.
        timezone: IANA name of the zone that ``cron`` is in, and that times are told in.

    Raises:
        ConfigError: Neither or both are given, or one is not what it must be.
    """

    kind = "schedule"
    needs: frozenset[str] = frozenset()

    def __init__(
        self, *, cron: str | None = None, every: str | None = None, timezone: str = "UTC"
    ) -> None:
        if (cron is None) == (every is None):
            raise ConfigError(
                "A schedule is either a cron expression or an interval; "
                f"{'neither is given' if cron is None else 'both are given'}.",
                where="trigger.cron, trigger.every",
                mend="write trigger.every=7d, or trigger.cron='0 3 * * 1'",
            )
        self.zone = _zone(timezone)
        self.words = f"every {every}" if cron is None else f"cron {cron!r}"
        self._cron = cron
        self._every = timedelta()
        if every is not None:
            self._every = require_span(every, where="trigger.every")
        else:
            self.after(datetime(2000, 1, 1, tzinfo=UTC))  # one that never comes is refused here

    def after(self, moment: datetime) -> datetime:
        """When it comes next after a time (aware), in UTC."""
        if self._cron is None:
            return moment + self._every - self._every / _SLACK
        return _next(self._cron, moment.astimezone(self.zone)).astimezone(UTC)

    def early(self, situation: Situation) -> Firing:
        """As `ask`."""
        return self.ask(situation)

    def ask(self, situation: Situation) -> Firing:
        """Due where no cycle was decided yet, or the schedule has come since.

        Raises:
            ConfigError: The clock reads a time before the last cycle.
        """
        last = situation.last
        if last is None:
            reason = f"no cycle was decided yet ({self.words})"
            return Firing(kind=self.kind, due=True, reason=reason)
        decided = f"the last cycle was decided on {shown(last.decided_at, self.zone)}"
        due_at = self.after(last.decided_at)
        due = due_at <= situation.now
        at = f"{'was' if due else 'is'} due on {shown(due_at, self.zone)} ({self.words})"
        return Firing(
            kind=self.kind,
            due=due,
            reason=f"{decided}, and the next {at}",
            evidence={"last": plain(last.decided_at), "due_at": plain(due_at)},
            earliest=None if due else due_at,
        )


def require_span(text: object, *, where: str) -> timedelta:
    """A span of time as settings write it.

    Raises:
        ConfigError: It is none, or is not above 0.
    """
    if (length := clock.span(text)) is None:
        raise ConfigError(
            f"{where.rpartition('.')[2]} is {text!r}, which is no span of time above 0.",
            where=where,
            mend=f"write {clock.SPANS}; s, m, h, d and w are known",
        )
    return length


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:  # unknown, malformed, a folder
        raise ConfigError(
            f"There is no timezone {name!r}.",
            where="trigger.timezone",
            mend="write an IANA name such as Europe/Berlin or UTC",
        ) from error


def _next(cron: str, moment: datetime) -> datetime:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError as error:
        raise ConfigError(
            "Cron expressions need a library that is not installed.",
            where="trigger.cron",
            mend="pip install 'perennial[monitor]', or write trigger.every=7d",
        ) from error
    if len(cron.split()) != 5:
        raise _malformed(cron, f"it has {len(cron.split())} fields")
    try:
        # an hour that comes twice is that of before the change, which may be over at its second
        times = (time for time in CronSim(cron, moment))
        return next(time for time in times if time.astimezone(UTC) > moment.astimezone(UTC))
    except CronSimError as error:
        field = str(error).removeprefix("Bad ").replace("-", " ")
        raise _malformed(cron, f"its {field} is not right") from error
    except StopIteration as error:
        raise _malformed(cron, "its day never comes") from error


def _malformed(cron: str, why: str) -> ConfigError:
    return ConfigError(
        f"{cron!r} is no cron expression: {why}.",
        where="trigger.cron",
        mend=f"give {_CRON}",
    )
