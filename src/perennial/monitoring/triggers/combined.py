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
        self._of = _ordered(of, self.kind)

    @property
    def needs(self) -> frozenset[str]:
        """What one of them needs."""
        return _needs(self._of)

    def early(self, situation: Situation) -> Firing | None:
        """Due where one is without data; not due where none is, and none needs data."""
        known = _known(self._of, situation, decisive=True)
        return None if known is None else self._told(known)

    def ask(self, situation: Situation) -> Firing:
        """The first that is due, or all that are not."""
        known = _known(self._of, situation, decisive=True)
        return self._told(known or _asked(self._of, situation, decisive=True))

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
        self._of = _ordered(of, self.kind)

    @property
    def needs(self) -> frozenset[str]:
        """What one of them needs."""
        return _needs(self._of)

    def early(self, situation: Situation) -> Firing | None:
        """Not due where one is not without data; due where all are, and none needs data."""
        known = _known(self._of, situation, decisive=False)
        return None if known is None else self._told(known)

    def ask(self, situation: Situation) -> Firing:
        """All of them, or the first that is not due."""
        known = _known(self._of, situation, decisive=False)
        return self._told(known or _asked(self._of, situation, decisive=False))

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


def _ordered(of: Mapping[str, Trigger], kind: str) -> dict[str, Trigger]:
    if not of:
        raise ConfigError(
            f"trigger={kind} combines triggers, and none is named.",
            where="trigger.of",
            mend="add some: +trigger@trigger.of.weekly=schedule trigger.of.weekly.every=7d "
            "+trigger@trigger.of.drift=drift",
        )
    return dict(sorted(of.items(), key=lambda item: _cost(item[1].needs)))


def _known(
    of: Mapping[str, Trigger], situation: Situation, *, decisive: bool
) -> dict[str, Firing] | None:
    """Answers without data, where one of them settles it or all are there; else None."""
    early = {name: one.early(situation) for name, one in of.items()}
    known = {name: firing for name, firing in early.items() if firing is not None}
    settled = any(firing.due is decisive for firing in known.values())
    return known if settled or len(known) == len(early) else None


def _asked(of: Mapping[str, Trigger], situation: Situation, *, decisive: bool) -> dict[str, Firing]:
    """Answers up to the first that settles it."""
    asked = {}
    for name, one in of.items():
        asked[name] = one.ask(situation)
        if asked[name].due is decisive:
            break
    return asked


def _cost(needs: frozenset[str]) -> int:
    return max((1 + _ORDER.index(need) for need in needs), default=0)


def _needs(of: Mapping[str, Trigger]) -> frozenset[str]:
    return frozenset[str]().union(*(one.needs for one in of.values()))


def _sentence(asked: Mapping[str, Firing]) -> str:
    return "; ".join(f"{name}: {firing.reason}" for name, firing in asked.items())


def _evidence(asked: Mapping[str, Firing]) -> dict[str, Any]:
    return {"of": {name: firing.to_dict() for name, firing in asked.items()}}
