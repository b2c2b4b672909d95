"""Triggers that look at nothing, or only at whether rows have come."""

from __future__ import annotations

from perennial.monitoring.triggers.base import Firing, Situation


class Manual:
    """Whoever calls decides: always due."""

    kind = "manual"
    needs: frozenset[str] = frozenset()

    def early(self, situation: Situation) -> Firing:
        """As `ask`."""
        return self.ask(situation)

    def ask(self, situation: Situation) -> Firing:
        """Due."""
        return Firing(kind=self.kind, due=True, reason="started by hand or by a scheduler")


class Continuous:
    """Due as soon as rows have come; the limit ``minimum_rows`` says how many."""

    kind = "continuous"
    needs = frozenset({"rows"})

    def early(self, situation: Situation) -> None:
        """Nothing before the rows are counted."""
        return

    def ask(self, situation: Situation) -> Firing:
        """Due where the lineage has not met all rows."""
        rows = situation.rows
        assert rows is not None
        return Firing(
            kind=self.kind,
            due=rows > 0,
            reason=f"{rows:,} new labelled rows have come",
            evidence={"rows": rows},
        )
