"""Which trial is the best, which ones nothing beats, and by what rule; functions of scores alone.

A score is a mapping of ``new``, ``history`` and ``combined``, all on validation rows and all the
higher the better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Scores = Mapping[str, float]

PARTS = {"combined": "combined", "retention": "history", "plasticity": "new"}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one trial is chosen.

    Attributes:
        choose: ``combined`` or ``budget``.
        budget: Retention that may be lost against the champion.
    """

    choose: str = "combined"
    budget: float = 0.01

    def value(self, candidate: Scores, champion: Scores) -> float | None:
        """What the rule maximises; None for a candidate that it does not take.

        >>> rule = Rule(choose="budget", budget=0.01)
        >>> rule.value({"new": 0.8, "history": 0.895}, {"new": 0.1, "history": 0.9})
        0.8
        >>> rule.value({"new": 0.9, "history": 0.88}, {"new": 0.1, "history": 0.9})
        """
        if self.choose == "combined":
            return candidate.get("combined")
        if not keeps(candidate, champion, budget=self.budget):
            return None
        return candidate.get("new")


def keeps(candidate: Scores, champion: Scores, *, budget: float) -> bool:
    """Whether a candidate loses at most a budget of the champion's retention.

    >>> keeps({"history": 0.89}, {"history": 0.9}, budget=0.01)
    True
    """
    if "history" not in candidate or "history" not in champion:
        return False
    # 0.9 - 0.01 is above 0.89 in binary
    return candidate["history"] - champion["history"] >= -budget - 1e-12


def objective_values(scores: Scores, objectives: Sequence[str]) -> list[float] | None:
    """The objectives' values in their order; None where one was not measured."""
    found = [scores.get(PARTS[one]) for one in objectives]
    return None if None in found else [value for value in found if value is not None]


def pareto(values: Sequence[Sequence[float]]) -> list[int]:
    """Places of the points that no other one beats: as good in all, and better in one.

    >>> pareto([(0.9, 0.1), (0.8, 0.5), (0.7, 0.5), (0.2, 0.9)])
    [0, 1, 3]
    """

    def beats(one: Sequence[float], other: Sequence[float]) -> bool:
        pairs = list(zip(one, other, strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return [
        place
        for place, point in enumerate(values)
        if not any(beats(other, point) for other in values)
    ]


def best(values: Sequence[float | None]) -> int | None:
    """Place of the largest, of equal ones the first; None where there is none."""
    known = [(value, -place) for place, value in enumerate(values) if value is not None]
    return -max(known)[1] if known else None
