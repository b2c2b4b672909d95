"""What a reader of a comparison must know, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perennial.tracking.compare.runs import Run

if TYPE_CHECKING:
    from perennial.tracking.compare.table import Score


def notes(
    runs: Sequence[Run],
    score: Score | None,
    pairs: Sequence[Mapping[str, Any]],
    reference: Run | None,
    *,
    copies: int,
) -> list[str]:
    """Sentences about what the runs do not share, and what could not be told.

    Args:
        runs: Those shown.
        score: By which they are compared.
        pairs: Each one's paired differences.
        reference: What these are from.
        copies: How many copies of runs were left out.
    """
    scored = [run for run in runs if run.scored]
    told = []
    lineages = sorted({str(run.result["model_name"]) for run in runs})
    if len(lineages) > 1:
        told.append(f"The runs are of {len(lineages)} lineages: {', '.join(lineages)}.")
    own = sorted({run.score[0] for run in scored if run.score is not None})
    if len(own) > 1:
        by = f"all have {score.name}, and are compared by it" if score else "they share no metric"
        told.append(f"Their tasks have different scores ({', '.join(own)}): {by}.")
    for part, words in (("new", "new rows"), ("history", "history")):
        sizes = {(_rows(run, part), _source(run) if part == "new" else "") for run in scored}
        if len(sizes) > 1:
            told.append(
                f"Levels on {words} are not all on the same rows: read the paired difference."
            )
    waiting = [pair for run, pair in zip(runs, pairs, strict=True) if _asked(run, reference)]
    missing = sum(not pair for pair in waiting)
    if missing and score is not None and score.own:
        told.append(
            f"{missing} of {len(waiting)} have no paired difference: their stored predictions, or "
            "those of what they are held against, are not in this registry, or share no row."
        )
    if blind := sum(run.config is None for run in scored):
        told.append(f"{blind} left no configuration: their settings are not shown.")
    if copies:
        told.append(f"Copies of runs shown that are left out: {copies}.")
    return told


def _asked(run: Run, reference: Run | None) -> bool:
    return run.scored and reference is not None and run is not reference


def _rows(run: Run, part: str) -> tuple[tuple[str, Any], ...]:
    """Holdouts of a part with their numbers of rows."""
    measured = run.result["metrics"]["candidate"]
    names = sorted(name for name in measured if name.partition("/")[0] == part)
    return tuple((name, (measured[name] or {}).get("n")) for name in names)


def _source(run: Run) -> Any:
    return ((run.result["data"] or {}).get("new") or {}).get("sha256")
