"""What a notifier is, and the one that tells nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from perennial.errors import ConfigError

# of a cycle, and of `perennial monitor`
STATUSES = ("promoted", "rejected", "inconclusive", "failed", "skipped", "alarm", "calm")
DEFAULT = ("promoted", "rejected", "inconclusive", "failed", "alarm")


class Notifier(Protocol):
    """Told what a cycle or a look at new rows came to, once the registry has moved.

    Attributes:
        when: The statuses that it wants to hear of.
    """

    when: frozenset[str]

    def send(self, message: Mapping[str, Any]) -> str | None:
        """Tell it.

        Args:
            message: Plain JSON values, see `perennial.steps.notify.message`.

        Returns:
            What it says to that, for the log; None for nothing.

        Raises:
            NotificationError: It could not be told; says why without address or credentials.
        """


class Silent:
    """A `Notifier` for nobody."""

    when: frozenset[str] = frozenset()

    def send(self, message: Mapping[str, Any]) -> None:
        """Nothing."""


def statuses(when: Sequence[str]) -> frozenset[str]:
    """The statuses to tell of.

    Raises:
        ConfigError: There are none, or one is not a status.
    """
    given = [when] if isinstance(when, str) else list(when)
    if not given or not set(given) <= set(STATUSES):
        raise ConfigError(
            f"notify.when is {when!r}.",
            where="notify.when",
            mend=f"list some of {', '.join(STATUSES)}",
        )
    return frozenset(given)


def seconds(timeout: float) -> float:
    """A time limit, finite and above 0.

    Raises:
        ConfigError: It is another.
    """
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not 0 < timeout <= 3600:
        raise ConfigError(
            f"notify.timeout is {timeout!r}; it takes seconds above 0, an hour at most.",
            where="notify.timeout",
            mend="write notify.timeout=10",
        )
    return float(timeout)
