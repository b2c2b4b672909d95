"""Predictions of the champion on windows of rows, in the registry until their labels come."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.data.rows import Rows, concatenate
from perennial.errors import ConfigError, DataError, EvaluationError
from perennial.monitoring.performance import (
    HeldOut,
    Joined,
    Record,
    join,
    read,
    recorded,
    refuse_backwards,
    to_bytes,
)
from perennial.promotion import predictions
from perennial.promotion.registry import Registry, Version
from perennial.promotion.windows import Content, Window
from perennial.steps.learner import Learner
from perennial.types import NAMED_KINDS, Booleans, Floats, Predictions, Strings

# that a version keeps at most; all windows are read whenever it is watched
ROWS, WINDOWS = 200_000, 1_000


def held_out_from(found: Predictions, *, kind: str, classes: int, score_name: str) -> HeldOut:
    """A version on held-out rows, of predictions that were made now.

    Args:
        found: Of the version, on rows that it never learned from.
        kind: Of the targets, one of `perennial.types.TARGET_KINDS`.
        classes: Number of classes; 0 for a task without them.
        score_name: Of the scores' mean.
    """
    sure = kind == "class" and found.probabilities is not None
    return HeldOut(
        score=found.score,
        confidence=confidence(found) if sure else None,
        predicted=found.prediction if sure else None,
        classes=classes,
        score_name=score_name,
    )


def held_out_of(version: Version) -> HeldOut | None:
    """A version on the new holdout that it was decided on, from its stored predictions.

    Returns:
        None where there are none: a lineage's first version was decided on nothing.

    Raises:
        EvaluationError: A stored file is damaged, or all rows of it were forgotten.
    """
    if predictions.ROWS not in version.files:
        return None
    report = predictions.read(version.open(predictions.ROWS), version.open(predictions.FACTS))
    new = report.is_new
    if not new.any():
        raise EvaluationError(
            f"No row is left of the holdout that {version.id} was decided on.",
            where=f"{version.id}: {predictions.ROWS}",
            mend="retrain: the next version has a holdout of its own",
        )
    of = report.candidate
    rows = Predictions(
        prediction=of.prediction[new],
        score=of.score[new],
        loss=of.loss[new],
        probabilities=None if of.probabilities is None else of.probabilities[new],
    )
    return held_out_from(
        rows,
        kind=report.target_kind,
        classes=len(report.label_names),
        score_name=report.score_name,
    )


def held_out_now(
    version: Version,
    learner: Learner,
    held: Iterable[tuple[Rows, Booleans]],
    *,
    names: Sequence[str],
) -> HeldOut:
    """A version that was decided on nothing, as a lineage's first is, as it does on holdouts now.

    Args:
        version: For messages.
        learner: Its model, with its weights.
        held: Holdouts, and which of their rows (N,) it was trained on.
        names: Classes in the order of the outputs.

    Raises:
        DataError: There is no held-out row that it never learned from.
    """
    rows = [part.take(~seen) for part, seen in held if not seen.all()]
    if not rows:
        raise DataError(
            f"{version.id} has no held-out rows that it never learned from, so that it is not "
            "known how well it did.",
            where=version.id,
            mend="give data.history_holdout=PATH, or watch by trigger=drift or trigger=schedule",
        )
    task = learner.task
    return held_out_from(
        learner.predict(concatenate(rows), classes=len(names)),
        kind=task.target_kind,
        classes=len(names) if task.target_kind in NAMED_KINDS else 0,
        score_name=task.score_name,
    )


def confidence(found: Predictions) -> Floats | None:
    """Probability of each row's most probable class (N,); None for a task without classes."""
    if found.probabilities is None or found.probabilities.ndim != 2:
        return None
    return np.asarray(found.probabilities.max(axis=1), dtype=np.float64)


def recorded_of(registry: Registry, version: Version) -> list[Record]:
    """What a version predicted, window by window, in the order in which they were recorded.

    Raises:
        DataError, IntegrityError: A stored file is damaged or gone.
    """
    return [read(one.open()) for one in registry.windows(version.name, version.number)]


def keep_predictions(
    registry: Registry,
    version: Version,
    *,
    window: str,
    ids: Strings,
    found: Predictions,
    time: npt.NDArray[Any] | None,
    now: datetime,
    where: str,
    labelled: bool = False,
) -> bool:
    """Record what a version predicted for a window; one that is recorded stays as it is.

    Args:
        registry: Where the version lives.
        version: That predicted.
        window: Fingerprint of the rows.
        ids: Row ids (N,).
        found: Its predictions for them.
        time: The time column's values (N,), or None.
        now: The present time, aware.
        where: The source, for messages.
        labelled: Whether the rows' labels are there, so that scores are recorded at once.

    Returns:
        Whether it was recorded now.

    Raises:
        ConfigError: The labels are to come later, and the lineage has no id column to join them by.
        DataError: Ids, times or the clock are not as they must be.
        RegistryError: Another process wrote to the window, or rows were forgotten, meanwhile.
    """
    known = registry.windows(version.name, version.number)
    if any(one.window == window for one in known):
        return False
    if not labelled and version.manifest["lineage"]["data.id_column"] is None:
        raise ConfigError(
            f"{version.name} has no id column, and a row without a label has another content than "
            "with it: labels that come later could not be joined.",
            where="data.id_column",
            mend="found a lineage with data.id_column=NAME, or monitor rows with labels",
        )
    forgotten = registry.forgotten(version.name)
    kind = version.manifest["task"]["kind"]
    record = recorded(
        ids,
        found.prediction,
        confidence=confidence(found) if kind == "class" else None,
        time=time,
        now=now,
        where=where,
        forgotten=forgotten,
    )
    if known:
        refuse_backwards([read(one.open()) for one in known], record, where=where)
    if labelled:
        joined = join({window: record}, ids, found.score, now=now, where=where, forgotten=forgotten)
        record = joined.changed.get(window, record)
    content = Content(to_bytes(record), len(record))
    registry.keep_windows(version, {window: content}, erasures=forgotten.erasures)
    return True


def join_labels(
    registry: Registry,
    version: Version,
    *,
    ids: Strings,
    score: Floats,
    now: datetime,
    where: str,
) -> Joined:
    """Keep the scores of rows whose labels came; repeating it changes nothing.

    Args:
        registry: Where the version lives.
        version: That predicted.
        ids: Of the labelled rows (K,).
        score: Its per-example scores (K,) for them.
        now: The present time, aware.
        where: The labels' source, for messages.

    Raises:
        DataError: Ids twice, scores that are not finite, or labels of rows never predicted.
        RegistryError: Another process wrote to a window, or rows were forgotten, meanwhile.
    """
    forgotten = registry.forgotten(version.name)
    known = registry.windows(version.name, version.number)
    records = {one.window: read(one.open()) for one in known}
    made = join(records, ids, score, now=now, where=where, forgotten=forgotten)
    before = {one.window: one.sha256 for one in known}
    contents = {
        window: Content(to_bytes(record), len(record), replaces=before[window])
        for window, record in made.changed.items()
    }
    if contents:
        registry.keep_windows(version, contents, erasures=forgotten.erasures)
    return made


def drop_outgrown(
    registry: Registry, name: str, *, rows: int = ROWS, windows: int = WINDOWS
) -> int:
    """Drop windows of versions that serve no longer, and what is beyond the bound of the champion.

    The version before the champion keeps its own: a rollback goes back to them.

    Args:
        registry: Where the lineage lives.
        name: The lineage.
        rows: That one version keeps at most; its newest window always stays.
        windows: Likewise.

    Returns:
        How many windows were dropped.
    """
    aliases = registry.aliases(name)
    serving = {aliases.get("champion"), aliases.get("previous")}
    known = registry.windows(name)
    return registry.drop_windows(outgrown(known, serving, most_rows=rows, most=windows))


def outgrown(
    windows: Sequence[Window], serving: Collection[int | None], *, most_rows: int, most: int
) -> list[Window]:
    """Windows of versions that do not serve, and the oldest beyond bounds of those that do."""
    gone: list[Window] = []
    kept: dict[int, list[int]] = {number: [] for number in serving if number is not None}
    for window in reversed(windows):
        rows = kept.get(window.number)
        if rows is None or (rows and (len(rows) >= most or sum(rows) + window.rows > most_rows)):
            gone.append(window)
            kept.pop(window.number, None)  # nor what is older still: a stream has no holes
        else:
            rows.append(window.rows)
    return gone
