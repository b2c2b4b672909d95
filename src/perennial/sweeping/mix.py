"""The share of new rows in a batch that learns most within a retention budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perennial.sweeping.choice import Scores, keeps

SHARE = "method.replay.new_fraction"
PLACES = 4


def next_shares(
    tried: Mapping[float, tuple[Scores, Scores] | None],
    *,
    grid: Sequence[float],
    budget: float,
    rounds: int,
) -> list[float]:
    """Shares to try next: the grid, then, so many times, halfway to both neighbours of the best.

    It depends on what was tried alone, so that a sweep that was stopped goes on as it would have.

    Args:
        tried: Share to the candidate's and the champion's scores; None for a trial that failed.
        grid: To begin with, ascending.
        budget: Retention that may be lost.
        rounds: How often the grid is refined.

    Returns:
        None of what was tried; empty at the end.
    """
    known = [round(share, PLACES) for share in grid]
    missing = [share for share in known if share not in tried]
    for _ in range(rounds):
        if missing:
            break
        known = sorted(known)
        measured = {share: found for share in known if (found := tried[share]) is not None}
        if (at := leading(measured, budget=budget)) is None:
            break
        place = known.index(at)
        beside = known[max(place - 1, 0) : place] + known[place + 1 : place + 2]
        halves = [round((at + other) / 2, PLACES) for other in beside]
        known += [share for share in halves if share not in known]
        missing = [share for share in halves if share not in tried]
    return missing


def leading(measured: Mapping[float, tuple[Scores, Scores]], *, budget: float) -> float | None:
    """The share that learns most within the budget; where none keeps it, the one that keeps most.

    Of equal ones the smaller share, which replays more.
    """
    within = {
        share: candidate["new"]
        for share, (candidate, champion) in measured.items()
        if keeps(candidate, champion, budget=budget) and "new" in candidate
    }
    ranked = within or {s: c["history"] for s, (c, _) in measured.items() if "history" in c}
    return max(ranked, key=lambda share: (ranked[share], -share), default=None)
