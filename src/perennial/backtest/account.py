"""What each policy gained and cost, and which one to take.

Shapes: T windows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial import statistics
from perennial.backtest.replay import Course, Step
from perennial.errors import ConfigError

# of the best gain over never, so much is to be kept where no money is told
KEPT = 0.9
# a point is a hundredth of the metric
POINT = 0.01

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Money; None is not counted.

    Args:
        device_hour: An hour of the device, in training.
        label: A label.
        per_point: What a hundredth of the metric is worth in one window.

    Raises:
        ConfigError: A price below 0, or no number.
    """

    device_hour: float | None = None
    label: float | None = None
    per_point: float | None = None

    def __post_init__(self) -> None:
        keys = {
            "cost.device_hour": self.device_hour,
            "cost.label": self.label,
            "value.per_point": self.per_point,
        }
        for key, value in keys.items():
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(
                    f"{key} is {value!r}.", where=key, mend="give a number from 0, or null"
                )

    @property
    def complete(self) -> bool:
        """Whether gains are worth money, so that policies can be held against each other by it."""
        return self.per_point is not None


def accounts(
    courses: Sequence[Course], *, prices: Prices, higher_is_better: bool
) -> list[dict[str, Any]]:
    """Scores, costs and money of each policy, as plain values.

    Args:
        courses: Of all policies, ``never`` first.
        prices: Money.
        higher_is_better: Direction of the metric.
    """
    gained = {course.policy: _gains(course, courses[0], higher_is_better) for course in courses}
    best = max(float(gains.mean()) for gains in gained.values())
    return [_account(course, gained[course.policy], best, prices) for course in courses]


def recommendation(
    courses: Sequence[Course], *, prices: Prices, higher_is_better: bool
) -> dict[str, Any]:
    """The policy to take, and what can be told of it against the others.

    Where gains are worth money it is the one with the most of it. Otherwise it is the one of fewest
    device-seconds among those that keep `KEPT` of the best gain over ``never``, and ``never`` where
    nothing gains. Differences are means over windows, each with an interval of 95% by blocks of
    windows (`perennial.statistics.block_mean`), not corrected for how many there are.

    Args:
        courses: Of all policies, ``never`` first.
        prices: Money.
        higher_is_better: Direction of the metric.
    """
    gained = {course.policy: _gains(course, courses[0], higher_is_better) for course in courses}
    by = "money" if prices.complete else "score"
    worth = gained
    if by == "money":
        worth = {c.policy: _net(c, gained[c.policy], prices) for c in courses}
        chosen = max(worth, key=lambda policy: float(worth[policy].sum()))
    else:
        chosen = _frugal(courses, gained)
    differences = []
    for course in courses:
        if course.policy != chosen:
            found = statistics.block_mean(worth[chosen] - worth[course.policy])
            differences.append(
                {
                    "policy": course.policy,
                    "mean": found.mean,
                    "interval": list(found.interval) if math.isfinite(found.error) else None,
                    "told_apart": found.told_from_zero,
                }
            )
    best = max(gained, key=lambda policy: float(gained[policy].mean()))
    return {"policy": chosen, "by": by, "best": best, "differences": differences}


def device_seconds(course: Course) -> float:
    """Of all cycles that a policy ran."""
    return sum(step.retraining.ran.device_seconds for step in course.steps if step.retraining)


def _frugal(courses: Sequence[Course], gained: Mapping[str, Floats]) -> str:
    best = max(float(gains.mean()) for gains in gained.values())
    if best <= 0:
        return courses[0].policy
    enough = [c for c in courses if float(gained[c.policy].mean()) >= KEPT * best]
    return min(enough, key=device_seconds).policy


def _gains(course: Course, never: Course, higher_is_better: bool) -> Floats:
    """Of each window over never (T,), higher is better."""
    sign = 1.0 if higher_is_better else -1.0
    return sign * (_scores(course) - _scores(never))


def _scores(course: Course) -> Floats:
    return np.array([step.score for step in course.steps])


def _net(course: Course, gains: Floats, prices: Prices) -> Floats:
    """Money of each window (T,): what its gain is worth, less what was spent after it."""
    assert prices.per_point is not None
    spent = np.array([sum(_spent(step, prices).values()) for step in course.steps])
    net: Floats = gains / POINT * prices.per_point - spent
    return net


def _spent(step: Step, prices: Prices) -> dict[str, float]:
    seconds = step.retraining.ran.device_seconds if step.retraining else 0.0
    spent = {}
    if prices.device_hour is not None:
        spent["device_cost"] = seconds / 3600 * prices.device_hour
    if prices.label is not None:
        spent["label_cost"] = step.labels * prices.label
    return spent


def _account(course: Course, gains: Floats, best: float, prices: Prices) -> dict[str, Any]:
    ran = [step.retraining.ran for step in course.steps if step.retraining]
    verdicts = [one.verdict for one in ran]
    gain = float(gains.mean())
    return {
        "policy": course.policy,
        "scores": _scores(course).tolist(),
        "mean": float(_scores(course).mean()),
        "gain": gain,
        "share": gain / best if best > 0 else None,
        "cycles": len(ran),
        "promoted": sum(one.applied for one in ran),
        "rejected": verdicts.count("rejected"),
        "inconclusive": verdicts.count("inconclusive"),
        "failed": verdicts.count("failed"),
        "device_seconds": device_seconds(course),
        "optimizer_steps": sum(one.optimizer_steps for one in ran),
        "train_rows": sum(one.train_rows for one in ran),
        "labels": sum(step.labels for step in course.steps),
        "money": _money(course, gains, prices),
        "windows": [_window(step) for step in course.steps],
    }


def _money(course: Course, gains: Floats, prices: Prices) -> dict[str, float | None]:
    """What was spent and gained; None for what is not counted."""
    spent = [_spent(step, prices) for step in course.steps]
    device, labels = (
        None if price is None else sum(one[name] for one in spent)
        for name, price in (("device_cost", prices.device_hour), ("label_cost", prices.label))
    )
    value = None if prices.per_point is None else float(gains.sum()) / POINT * prices.per_point
    net = None if value is None else value - (device or 0.0) - (labels or 0.0)
    return {"device_cost": device, "label_cost": labels, "value": value, "net": net}


def _window(step: Step) -> dict[str, Any]:
    firing, retraining = step.firing, step.retraining
    return {
        "window": step.window,
        "score": step.score,
        "trigger": None if firing is None else firing.to_dict(),
        "labels": step.labels,
        "cycle": None
        if retraining is None
        else {
            "windows": [retraining.first, retraining.last],
            "rows": retraining.rows,
            **asdict(retraining.ran),
        },
    }
