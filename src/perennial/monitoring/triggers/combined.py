"""Several triggers as one, asked in the order of what they need: the clock before any data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perennial.errors import ConfigError
from perennial.monitoring.triggers.base import Firing, Situation, Trigger

_ORDER = ("rows", "errors", "reference")  # by what it costs to look at them


class AnyOf:
    """Due where one of several is; those after the first that is due are not asked.

    Args:
        of: Name to trigger.

    Raises:
        ConfigError: There is none.
    """

    kind = "any"

    def __init__(self, *, of: Mapping[str, Trigger]) -> None:
        self._parts = _Parts(of, self.kind, decisive=True)
        self.needs = self._parts.needs

    def early(self, situation: Situation) -> Firing | None:
        """Due where one is without data; not due where none is, and none needs data."""
        known = self._parts.known(situation)
        return None if known is None else self._told(known)

    def ask(self, situation: Situation) -> Firing:
        """The first that is due, or all that are not."""
        return self._told(self._parts.asked(situation))

    def _told(self, asked: Mapping[str, Firing]) -> Firing:
        fired = {name: firing for name, firing in asked.items() if firing.due}
        name = next(iter(fired), None)
        ends = [firing.earliest for firing in asked.values()]
        known = [end for end in ends if end is not None]
        return Firing(
            kind=self.kind,
            due=bool(fired),
            reason=_sentence(asked if name is None else {name: fired[name]}),
            evidence=_evidence(asked),
            # one that data decide may be due at the next call
            earliest=min(known) if not fired and len(known) == len(ends) else None,
        )


class AllOf:
    """Due where each of several is; those after the first that is not are not asked.

    Args:
        of: Name to trigger.

    Raises:
        ConfigError: There is none.
    """

    kind = "all"

    def __init__(self, *, of: Mapping[str, Trigger]) -> None:
        self._parts = _Parts(of, self.kind, decisive=False)
        self.needs = self._parts.needs

    def early(self, situation: Situation) -> Firing | None:
        """Not due where one is not without data; due where all are, and none needs data."""
        known = self._parts.known(situation)
        return None if known is None else self._told(known)

    def ask(self, situation: Situation) -> Firing:
        """All of them, or the first that is not due."""
        return self._told(self._parts.asked(situation))

    def _told(self, asked: Mapping[str, Firing]) -> Firing:
        missed = {name: firing for name, firing in asked.items() if not firing.due}
        ends = [firing.earliest for firing in missed.values() if firing.earliest is not None]
        return Firing(
            kind=self.kind,
            due=not missed,
            reason=_sentence(missed or asked),
            evidence=_evidence(asked),
            earliest=max(ends, default=None),
        )


class _Parts:
    """Triggers in the order of what they cost, asked up to the first answer that settles it.

    Args:
        of: Name to trigger.
        kind: Of the combination, for messages.
        decisive: Whether an answer that is due settles it, or one that is not.
    """

    def __init__(self, of: Mapping[str, Trigger], kind: str, *, decisive: bool) -> None:
        if not of:
            raise ConfigError(
                f"trigger={kind} combines triggers, and none is named.",
                where="trigger.of",
                mend="add some: +trigger@trigger.of.weekly=schedule trigger.of.weekly.every=7d "
                "+trigger@trigger.of.drift=drift",
            )
        self._of = dict(sorted(of.items(), key=lambda item: _cost(item[1].needs)))
        self._decisive = decisive
        self.needs = frozenset[str]().union(*(one.needs for one in of.values()))

    def known(self, situation: Situation) -> dict[str, Firing] | None:
        """Answers without data, where one of them settles it or all are there; else None."""
        early = {name: one.early(situation) for name, one in self._of.items()}
        known = {name: firing for name, firing in early.items() if firing is not None}
        settled = any(firing.due is self._decisive for firing in known.values())
        return known if settled or len(known) == len(early) else None

    def asked(self, situation: Situation) -> dict[str, Firing]:
        """Those answers, else all up to the first that settles it."""
        if (known := self.known(situation)) is not None:
            return known
        asked = {}
        for name, one in self._of.items():
            asked[name] = one.ask(situation)
            if asked[name].due is self._decisive:
                break
        return asked


def _cost(needs: frozenset[str]) -> int:
    return max((1 + _ORDER.index(need) for need in needs), default=0)


def _sentence(asked: Mapping[str, Firing]) -> str:
    return "; ".join(f"{name}: {firing.reason}" for name, firing in asked.items())


def _evidence(asked: Mapping[str, Firing]) -> dict[str, Any]:
    return {"of": {name: firing.to_dict() for name, firing in asked.items()}}
