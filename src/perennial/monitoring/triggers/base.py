"""What a trigger is asked, what it looks at, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import cache
from typing import Any, Protocol

from perennial.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Firing:
    """A trigger's answer.

    Attributes:
        kind: The trigger's.
        due: Whether a cycle is due.
        reason: One sentence in a user's words, without a capital and a full stop.
        evidence: What it rests on, as plain JSON values.
        earliest: When it can be due at the earliest, where that is a matter of time.
    """

    kind: str
    due: bool
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    earliest: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``result.json`` keeps them."""
        earliest = {} if self.earliest is None else {"earliest": plain(self.earliest)}
        evidence = {**self.evidence, **earliest}
        return {"kind": self.kind, "due": self.due, "reason": self.reason, "evidence": evidence}


@dataclass(frozen=True)
class Past:
    """A decided cycle.

    Attributes:
        decided_at: When, aware.
        verdict: ``promoted``, ``rejected`` or ``inconclusive``.
        applied: Whether the champion's alias moved.
        device_seconds: What training took; None where it is not known.
    """

    decided_at: datetime
    verdict: str
    applied: bool
    device_seconds: float | None


# of evidence, what tells which rows were looked at
_NAMES = ("row_id", "since_row_id", "unseen_names")


def nameless(told: Any) -> Any:
    """What a trigger answered, as plain values, without what would tell of single rows.

    Examples:
        >>> nameless({"evidence": {"alarms": [{"row": 3, "row_id": "r7"}]}})
        {'evidence': {'alarms': [{'row': 3}]}}
    """
    if isinstance(told, Mapping):
        return {key: nameless(value) for key, value in told.items() if key not in _NAMES}
    return [nameless(one) for one in told] if isinstance(told, list) else told


def _absent() -> Any:
    raise AssertionError("a trigger looked at what it does not need")


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What a trigger may look at.

    Attributes:
        now: The present time, aware.
        cycles: Decided cycles of the lineage, oldest first.
        rows: Labelled rows that the lineage has not met; None before any data are opened.
        reference: Gives what the champion carries of its own rows; read once, when asked for.
        window: Gives the rows that are looked at, likewise.
        represent: Gives what runs the champion on raw columns, likewise.
        errors: Gives the champion on held-out rows and what it predicted, likewise.
        device: Where kernels are computed.
    """

    now: datetime
    cycles: Sequence[Past] = ()
    rows: int | None = None
    reference: Callable[[], Any] = _absent
    window: Callable[[], Any] = _absent
    represent: Callable[[], Any] = _absent
    errors: Callable[[], Any] = _absent
    device: Any = "cpu"

    def __post_init__(self) -> None:
        assert self.now.tzinfo is not None
        for name in ("reference", "window", "represent", "errors"):
            object.__setattr__(self, name, cache(getattr(self, name)))

    @property
    def last(self) -> Past | None:
        """The newest decided cycle, None before the first.

        Raises:
            ConfigError: The clock reads a time before it.
        """
        newest = max((past.decided_at for past in self.cycles), default=None)
        if newest is not None and newest > self.now:
            raise ConfigError(
                f"The clock reads {shown(self.now)}, and the lineage's last cycle was decided "
                f"later, on {shown(newest)}.",
                where="clock",
                mend="set the clock right, on this machine or on the one that decided; "
                "trigger=manual and no limits of time do without it",
            )
        return self.cycles[-1] if self.cycles else None


class Trigger(Protocol):
    """Decides whether a cycle is due.

    Attributes:
        kind: One word.
        needs: What it looks at of ``rows``, ``reference`` (with the window) and ``errors``.
    """

    @property
    def kind(self) -> str:
        """One word."""

    @property
    def needs(self) -> frozenset[str]:
        """Of ``rows``, ``reference`` and ``errors``."""

    def early(self, situation: Situation) -> Firing | None:
        """The answer where no data are needed for it, else None."""

    def ask(self, situation: Situation) -> Firing:
        """The answer."""


def shown(moment: datetime, zone: tzinfo = UTC) -> str:
    """A time as a person reads it, to the second.

    >>> shown(datetime(2026, 11, 26, 3, tzinfo=UTC))
    '2026-11-26 03:00 UTC'
    """
    local = moment.astimezone(zone)
    return local.strftime("%Y-%m-%d %H:%M:%S %Z" if local.second else "%Y-%m-%d %H:%M %Z")


def plain(moment: datetime) -> str:
    """A time as plain text, ISO 8601 in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")
