"""The parts of a policy: plain values, checked when they are built."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from perennial.errors import ConfigError

SCORES = ("task", "loss", "reciprocal_rank", "ndcg")
Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What may be lost on history.

    Attributes:
        margin: Largest loss against the champion, in (0, 1).
        total: Largest loss against the best champion ever on the rows, at least ``margin``; None
            does not ask.
        weights: ``rows`` count alike, or ``cycles``: every holdout does.
        half_life: In cycles: a holdout k cycles older than the newest counts 2^(-k / half_life).
        window: Only so many newest holdouts are looked at.
    """

    margin: float = 0.02
    total: float | None = 0.03
    weights: str = "rows"
    half_life: float | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        where = "gate.retention"
        within(f"{where}.margin", self.margin, 0, 1)
        one_of(f"{where}.weights", self.weights, ("rows", "cycles"))
        if self.total is not None:
            within(f"{where}.total", self.total, 0, 1)
            if self.total < self.margin:
                raise ConfigError(
                    f"gate.retention.total={self.total:g} is below gate.retention.margin="
                    f"{self.margin:g}: one cycle could lose more than all of them together.",
                    where=f"{where}.total",
                    mend=f"set gate.retention.total={self.margin:g} or larger, or null to ask for "
                    "the loss of a single cycle alone",
                )
        if self.half_life is not None:
            within(f"{where}.half_life", self.half_life, 0, math.inf)
            if self.weights == "cycles":
                raise ConfigError(
                    "gate.retention.half_life weights holdouts by age, and weights=cycles counts "
                    "each alike.",
                    where=f"{where}.half_life",
                    mend="choose one: gate.retention.half_life=null or gate.retention.weights=rows",
                )
        if self.window is not None:
            at_least(f"{where}.window", self.window, 1)


@dataclass(frozen=True, kw_only=True)
class Improvement:
    """What must be gained on new rows, or may at most be lost.

    Attributes:
        minimum_effect: Difference that must be exceeded, in (-1, 1). Below 0 it is a margin: the
            candidate must be shown to lose no more than that.
        alternative: True difference beyond it at which power is stated.
    """

    minimum_effect: float = 0.0
    alternative: float = 0.02

    def __post_init__(self) -> None:
        where = "gate.improvement"
        within(f"{where}.minimum_effect", self.minimum_effect, -1, 1)
        within(f"{where}.alternative", self.alternative, 0, 1 - self.minimum_effect)


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Which parts of the rows are looked at alone.

    Attributes:
        margin: Loss on a slice beyond which it is harmed, in (0, 1).
        minimum_rows: Independent rows without which a slice is not tested, at least 2.
        classes: Whether each true label is a slice.
        columns: Slice columns; None for all that there are.
    """

    margin: float = 0.05
    minimum_rows: int = 50
    classes: bool = True
    columns: Sequence[str] | None = None

    def __post_init__(self) -> None:
        where = "gate.slices"
        within(f"{where}.margin", self.margin, 0, 1)
        at_least(f"{where}.minimum_rows", self.minimum_rows, 2)
        switch(f"{where}.classes", self.classes)
        if self.columns is not None:
            texts(f"{where}.columns", self.columns)
            if len(set(self.columns)) < len(self.columns):
                raise ConfigError(
                    "gate.slices.columns names a column twice.",
                    where=f"{where}.columns",
                    mend="name each column once",
                )


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A floor or a ceiling for a metric of the candidate.

    Attributes:
        metric: Class of torchmetrics, ``MulticlassF1Score``.
        arguments: For its constructor, beyond the task and the number of classes.
        rows: ``new``, ``history`` or one holdout, ``history/cycle-2``.
        limit: A floor where higher values are better, else a ceiling.
    """

    metric: str
    limit: float
    rows: str = "new"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = "gate.bounds"
        if not isinstance(self.metric, str) or not self.metric.isidentifier():
            raise ConfigError(
                f"{where}: metric is {self.metric!r}; it takes the name of a torchmetrics class.",
                where=f"{where}.metric",
                mend="write one such as MulticlassF1Score",
            )
        within(f"{where}.limit", self.limit, -math.inf, math.inf)
        if not isinstance(self.rows, str) or not (
            self.rows in ("new", "history") or self.rows.startswith("history/")
        ):
            raise ConfigError(
                f"{where}: {self.metric} is asked on {self.rows!r}.",
                where=f"{where}.rows",
                mend="write new, history, or the name of a holdout such as history/cycle-2",
            )
        if not isinstance(self.arguments, Mapping):
            raise ConfigError(
                f"{where}: the arguments of {self.metric} are {self.arguments!r}.",
                where=f"{where}.arguments",
                mend="write them as settings, {average: macro}",
            )

    @property
    def key(self) -> str:
        """Metric, arguments and rows as one text; the limit is no part of it.

        >>> Bound(metric="MulticlassF1Score", arguments={"average": "macro"}, limit=0.6).key
        'MulticlassF1Score(average="macro")@new'
        """
        arguments = ", ".join(
            f"{name}={json.dumps(value, sort_keys=True, default=str)}"
            for name, value in sorted(self.arguments.items())
        )
        return f"{self.metric}({arguments})@{self.rows}"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How much worse the candidate's probabilities may be.

    Attributes:
        ece: Largest growth of the expected calibration error, a fraction; None does not ask.
        loss: Largest growth of the mean loss, in nats for classification; None does not ask.
    """

    ece: float | None = None
    loss: float | None = None

    def __post_init__(self) -> None:
        if self.ece is not None:
            within("gate.calibration.ece", self.ece, 0, 1)
        if self.loss is not None:
            within("gate.calibration.loss", self.loss, 0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """How much dearer the candidate may be to serve: ratios, candidate over champion.

    Attributes:
        parameters: Of their number.
        bytes: Of the stored weights.
        latency_p50: Of the median latency.
        latency_p95: Of the latency that 95% of the calls stay below.
    """

    parameters: float | None = None
    bytes: float | None = None
    latency_p50: float | None = None
    latency_p95: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            if (value := getattr(self, each.name)) is not None:
                within(f"gate.serving.{each.name}", value, 0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Sanity:
    """What is suspicious.

    Attributes:
        constant: Whether a candidate that predicts one class for all rows is rejected, unless
            most rows are of it and the probabilities differ.
        leak: A new score so far above the champion's on history raises an alarm; None for none.
        gap: Largest growth of the gap between training and holdout rows; None does not ask.
    """

    constant: bool = True
    leak: float | None = 0.1
    gap: float | None = None

    def __post_init__(self) -> None:
        switch("gate.sanity.constant", self.constant)
        if self.leak is not None:
            within("gate.sanity.leak", self.leak, 0, math.inf)
        if self.gap is not None:
            within("gate.sanity.gap", self.gap, 0, math.inf)


def part(kind: type[Part], where: str, given: Any) -> Part:
    """Build one part of a policy from what was written.

    Args:
        kind: One of the classes above.
        where: Its path, for messages.
        given: A mapping, or None for the defaults.

    Raises:
        ConfigError: It is no mapping, has an unknown key, lacks one, or a value is out of range.
    """
    given = {} if given is None else given
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{where} is {given!r}.",
            where=where,
            mend=f"write settings under it: {', '.join(sorted(known))}",
        )
    if unknown := sorted(map(str, set(given) - known)):
        raise ConfigError(
            f"{where}.{unknown[0]} is not a setting.",
            where=f"{where}.{unknown[0]}",
            mend=f"settings are {', '.join(sorted(known))}",
        )
    try:
        return kind(**given)
    except TypeError as error:
        raise ConfigError(
            f"{where} lacks a setting: {str(error).rpartition(': ')[2]}.",
            where=where,
            mend=f"settings are {', '.join(sorted(known))}",
        ) from error


def within(name: str, value: Any, low: float, high: float) -> float:
    """A number strictly between two others."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        if high == math.inf:
            must = "be a finite number" if low == -math.inf else f"be finite and above {low:g}"
        else:
            must = f"lie between {low:g} and {high:g}"
        raise ConfigError(
            f"{name} is {value!r}; it must {must}.",
            where=name,
            mend="give a number in that range",
        )
    return float(value)


def at_least(name: str, value: Any, low: int) -> int:
    """A whole number not below another."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(
            f"{name} is {value!r}; it takes a whole number from {low}.",
            where=name,
            mend=f"write {low} or more",
        )
    return value


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """One of some words."""
    if value not in known:
        raise ConfigError(
            f"{name} is {value!r}.", where=name, mend=f"choose one of {', '.join(known)}"
        )
    return str(value)


def switch(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}.", where=name, mend="write true or false")
    return value


def texts(name: str, value: Any) -> Sequence[str]:
    """A list of texts."""
    if (
        isinstance(value, str)
        or not isinstance(value, Sequence)
        or not all(isinstance(each, str) and each for each in value)
    ):
        raise ConfigError(f"{name} is {value!r}.", where=name, mend="write a list: [a, b]")
    return value
