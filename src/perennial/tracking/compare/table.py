"""Runs as the rows of one table: sorted, filtered, paired, with the settings that differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perennial.errors import ConfigError, PerennialError
from perennial.promotion.predictions import ROWS, Scores, read_scores
from perennial.tracking.compare import scores as scoring
from perennial.tracking.compare.notes import notes
from perennial.tracking.compare.runs import FOUNDED, Run, Unread
from perennial.tracking.compare.scores import PARTS, Estimate, Shared
from perennial.tracking.compare.settings import differing
from perennial.tracking.compare.values import meant, of_run
from perennial.tracking.compare.where import parse

COMMON = "loss"


@dataclass(frozen=True)
class Score:
    """What runs are compared by.

    Attributes:
        name: Of the metric.
        unit: ``points`` for shares of rows, else empty.
        own: Whether it is the score of every run's task, of which rows are known.
        higher: Whether a higher one is better.
    """

    name: str
    unit: str
    own: bool = True
    higher: bool = True


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        run: Where it comes from.
        levels: ``new`` and ``history`` to its level on them.
        against: Likewise to the paired difference from the reference; empty where none is known.
        settings: The settings that differ between runs.
    """

    run: Run
    levels: Mapping[str, Estimate]
    against: Mapping[str, Estimate] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean of the levels, NaN without any."""
        values = [one.value for one in self.levels.values()]
        return sum(values) / len(values) if values else math.nan


@dataclass(frozen=True)
class Comparison:
    """What is shown.

    Attributes:
        rows: In their order.
        unread: Runs of which there is nothing to compare.
        score: By which they are compared; None where they share none.
        reference: The run that the differences are from; None without a scored run.
        champion: Id and levels of the one champion that all were decided against, on the same rows.
        settings: Keys of the settings that differ.
        notes: What a reader must know, a sentence each.
    """

    rows: Sequence[Row]
    unread: Sequence[Unread]
    score: Score | None
    reference: Run | None
    champion: tuple[str, Mapping[str, Estimate]] | None
    settings: Sequence[str]
    notes: Sequence[str]


class _Stored(dict[str, Scores | None]):
    """The stored scores of versions, each read once; None where they cannot be read."""

    def of(self, run: Run) -> Scores | None:
        version = run.version
        if version is None or ROWS not in version.files:
            return None
        if version.id not in self:
            try:
                self[version.id] = read_scores(version.open(ROWS))
            except PerennialError:
                self[version.id] = None
        return self[version.id]


def compare_runs(
    runs: Sequence[Run],
    unread: Sequence[Unread] = (),
    *,
    sort: str | None = None,
    reverse: bool = False,
    where: str | None = None,
    against: Run | None = None,
    copies: int = 0,
) -> Comparison:
    """Compare runs.

    Args:
        runs: Each once.
        unread: Those that could not be read.
        sort: Key to sort by, largest first, texts alphabetically; None sorts by the mean of the
            levels on new rows and on history, the best first.
        reverse: Turn the order round.
        where: Expression that a run must pass; None keeps all.
        against: What differences are taken from; None is the first row.
        copies: How many copies of runs were left out, to be told.

    Raises:
        ConfigError: The expression or the key cannot be read.
    """
    values = [of_run(run) for run in runs] if where or sort else []
    if where is not None and runs:
        test = parse(where, {key for one in values for key in one})
        kept = [i for i, one in enumerate(values) if test(one)]
        runs, values = [runs[i] for i in kept], [values[i] for i in kept]
    score = shared_score([run for run in runs if run.scored])
    stored = _Stored()
    rows = [Row(run, _levels(run, score, stored)) for run in runs]
    ordered = [rows[i] for i in _order(rows, values, sort, reverse, score)]
    shown = [row for row in ordered if _has_place(row.run)]
    blank = [_without_scores(row.run) for row in ordered if not _has_place(row.run)]
    reference = against or next((row.run for row in shown if row.levels), None)
    pairs = _pairs([row.run for row in shown], reference, score, stored)
    configs = differing([row.run.config or {} for row in shown if row.run.config is not None])
    told = iter(configs)
    rows = [
        Row(row.run, row.levels, pair, next(told) if row.run.config is not None else {})
        for row, pair in zip(shown, pairs, strict=True)
    ]
    return Comparison(
        rows=rows,
        unread=[*blank, *unread],
        score=score,
        reference=reference,
        champion=_champion([row.run for row in shown if row.run.scored], score, stored),
        settings=list(configs[0]) if configs else [],
        notes=notes([row.run for row in shown], score, pairs, reference, copies=copies),
    )


def shared_score(runs: Sequence[Run]) -> Score | None:
    """The score of every run's task, else a metric that all of them have."""
    own = {run.score for run in runs if run.score is not None}
    if len(own) == 1:
        name, unit = next(iter(own))
        return Score(name, unit)
    known = [set(run.result["metrics"]["candidate"].get("new") or {}) - {"n"} for run in runs]
    both = set.intersection(*known) if known else set()
    names = [name for name, _ in sorted(own) if name in both]
    # of other metrics nobody knows here which way is better
    if not names and COMMON not in both:
        return None
    chosen = names[0] if names else COMMON
    return Score(chosen, "", own=False, higher=chosen != COMMON)


def _levels(
    run: Run, score: Score | None, stored: _Stored, who: str = "candidate"
) -> dict[str, Any]:
    if score is None or not run.scored:
        return {}
    if score.own and (scores := stored.of(run)) is not None and len(scores.candidate):
        return scoring.levels(scores, who)
    measured = run.result["metrics"].get(who) or {}
    found = {}
    for part in PARTS:
        value, n = ((measured.get(part) or {}).get(key) for key in (score.name, "n"))
        if value is None or not n:
            continue
        zero_one = score.own and score.name == "accuracy" and run.result["task"]["kind"] == "class"
        found[part] = scoring.share(value, n) if zero_one else Estimate(value, n)
    return found


def _pairs(
    runs: Sequence[Run], other: Run | None, score: Score | None, stored: _Stored
) -> list[dict[str, Estimate]]:
    """Each run's difference from another one, empty where they were scored on no row together."""
    if other is None or score is None or not score.own:
        return [{} for _ in runs]
    shared = [None if run is other else _shared(run, other, stored) for run in runs]
    found = iter(scoring.differences([one for one in shared if one is not None]))
    return [{} if one is None else next(found) for one in shared]


def _shared(run: Run, other: Run, stored: _Stored) -> Shared | None:
    """Another run and this one on the rows that both were scored on."""
    mine, theirs = stored.of(run), stored.of(other)
    # ids of versions name the same only within one registry
    together = run.version is not None and other.version is not None
    if mine is not None and together and run.champion == other.candidate:
        return scoring.own(mine)
    if theirs is not None and together and other.champion == run.candidate:
        return scoring.own(theirs, reverse=True)
    if mine is None or theirs is None:
        return None
    return scoring.join(theirs, mine)


def _order(
    rows: Sequence[Row],
    values: Sequence[Mapping[str, Any]],
    sort: str | None,
    reverse: bool,
    score: Score | None,
) -> list[int]:
    """Places of the rows in their order; those without a value come last either way."""
    found: list[Any] = [None if math.isnan(row.mean) else row.mean for row in rows]
    descending = score is None or score.higher
    if sort is not None and values:
        key = meant(sort, {name for one in values for name in one})
        found = [_sortable(one.get(key)) for one in values]
        texts = [value for value in found if isinstance(value, str)]
        if texts and len(texts) < sum(value is not None for value in found):
            raise ConfigError(
                f"{key} is a text in some runs and a number in others.",
                where="--sort",
                mend="sort by another key, or keep one kind by --where",
            )
        descending = not texts
    known = [i for i, value in enumerate(found) if value is not None]
    known.sort(key=lambda i: found[i], reverse=descending != reverse)
    return known + [i for i, value in enumerate(found) if value is None]


def _sortable(value: Any) -> Any:
    """Lists and empty mappings have no order among numbers: they are sorted as they are written."""
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _has_place(run: Run) -> bool:
    """A version that founded its lineage may be what others are held against."""
    return run.scored or run.verdict == FOUNDED


def _without_scores(run: Run) -> Unread:
    error = run.result["error"]
    reason = error["what"] if error else run.result["trigger"]["reason"]
    return Unread(run.name, f"{run.verdict}: {reason}")


def _champion(
    runs: Sequence[Run], score: Score | None, stored: _Stored
) -> tuple[str, Mapping[str, Estimate]] | None:
    """The champion that all runs were held against, if its own figures are the same in all."""
    if score is None or not runs:
        return None
    figures = [(run.champion, run.result["metrics"].get("champion")) for run in runs]
    if any(one != figures[0] for one in figures) or not figures[0][0]:
        return None
    levels = _levels(runs[0], score, stored, "champion")
    return (figures[0][0], levels) if levels else None
