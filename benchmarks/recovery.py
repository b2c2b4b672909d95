"""How much work a drift costs: retraining the champion, against a new model on everything.

python benchmarks/recovery.py --drift digits --seeds 10 --json recovery.json
PERENNIAL_DATA=FOLDER python benchmarks/recovery.py --drift fashion --seeds 2 --json recovery.json

A champion knows the history; the new rows are the same world with inverted contrast. The goal is
what a new model, trained on new rows and all of history, ends at on each of the two holdouts,
minus half a point. Counted are the optimizer steps, the rows of their batches (replayed ones
included) and the CPU time of training until one evaluation finds both holdouts at the goal: for
the default method, from the champion, as it is configured; for the new model, by the quickest of
its three learning rates. The goal is set by the rate that ends highest. So whatever is chosen is
chosen on the holdouts and in the new model's favour. Batches, clipping and the steps at which
either is evaluated are the same; evaluation is not counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import datasets
import numpy as np
import numpy.typing as npt
import torch
from harness import bar, finish
from protocols import dataset, load
from retention import count
from torch import Tensor, nn

from perennial.backtest import backtest
from perennial.data.digits import digits
from perennial.data.form import to_data
from perennial.data.memory import Memory
from perennial.data.source import read_rows
from perennial.evaluation.predict import eval_mode
from perennial.methods.base import Method
from perennial.methods.baselines import Scratch
from perennial.methods.ewc import EWC
from perennial.methods.replay import Replay
from perennial.models.reference import MLP, ConvNet
from perennial.steps.collect import Data
from perennial.steps.settings import Cycle
from perennial.training.settings import Training

if TYPE_CHECKING:
    from perennial.types import MethodContext, StepContext

RATES = (3e-4, 1e-3, 3e-3)
DEFAULT_RATE, WEIGHT_DECAY = 1e-3, 0.01  # conf/optimizer/adamw.yaml
NEW_FRACTION = 0.2  # conf/method/replay.yaml
SLACK = 0.005  # below what the new model ends at
SHARE = 1 / 5  # of the new model's rows
LONGER = 3  # as many times the new model's steps end a run that has not reached the goal
FIRST, GROWTH = 5, 1.1  # the first evaluation, and how much later each next one is

Windows = tuple[datasets.Dataset, datasets.Dataset]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A world before and after.

    Attributes:
        windows: A seed to the history and the new rows, with columns image, label, split, group.
        model: Builds what is trained.
        batch: Rows of a batch.
        steps: Optimizer steps that found the champion, and that the new model takes.
    """

    windows: Callable[[int], Windows]
    model: Callable[[], nn.Module]
    batch: int
    steps: int


@dataclass(frozen=True)
class Point:
    """Both accuracies after a step.

    Attributes:
        step: Optimizer steps taken.
        seconds: CPU time of them.
        history: Accuracy on the holdout of history.
        new: Accuracy on the new holdout.
    """

    step: int
    seconds: float
    history: float
    new: float


class Reached(Exception):  # noqa: N818
    """The goal is reached: what comes after is of no interest."""


class Watch(Method):
    """Scores both holdouts at some steps, with the clock stopped.

    Args:
        moments: The steps.
        held: Inputs (N, ...) and labels (N,) of the holdouts ``history`` and ``new``.
        goal: Accuracies at which training is broken off; None trains to the end.
        clock: Seconds of CPU time.

    Attributes:
        points: What was found so far.
    """

    name: ClassVar[str] = "watch"

    def __init__(
        self,
        *,
        moments: Sequence[int],
        held: Mapping[str, tuple[Tensor, Tensor]],
        goal: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.points: list[Point] = []
        self._moments = frozenset(moments)
        self._held = held
        self._goal = goal
        self._clock = clock
        self._idle = 0.0

    def prepare(self, context: MethodContext) -> None:
        """Start the clock."""
        self._idle = self._clock()

    def after_step(self, step: StepContext) -> None:
        """Score, where it is time.

        Raises:
            Reached: Both accuracies are at the goal.
        """
        if (number := step.global_step + 1) not in self._moments:
            return
        paused = self._clock()
        with eval_mode(step.model):
            scores = {name: self._accuracy(step, *rows) for name, rows in self._held.items()}
        self.points.append(Point(step=number, seconds=paused - self._idle, **scores))
        self._idle += self._clock() - paused
        if self._goal is not None and reached(self.points, self._goal):
            raise Reached

    def _accuracy(self, step: StepContext, inputs: Tensor, label: Tensor) -> float:
        assert step.logits_of is not None
        found = [
            step.logits_of(step.model, (part, at)).argmax(dim=1) == at
            for part, at in zip(inputs.split(500), label.split(500), strict=True)
        ]
        return float(torch.cat(found).double().mean())


def moments(steps: int) -> list[int]:
    """Steps after which is evaluated: each a tenth later than the one before, and the last."""
    found = [FIRST]
    while found[-1] < steps:
        found.append(min(max(found[-1] + 1, round(found[-1] * GROWTH)), steps))
    return found


def reached(points: Sequence[Point], goal: Mapping[str, float]) -> Point | None:
    """The first point at which both accuracies are at the goal, or None."""
    for point in points:
        if point.history >= goal["history"] and point.new >= goal["new"]:
            return point
    return None


def _digits(seed: int) -> Windows:
    history, new = (
        digits(part=part, inverted=part == "new", seed=seed) for part in ("history", "new")
    )
    return history, new


def fashion(path: str, rows: tuple[int, int, int], seed: int) -> Windows:
    """Two parts of the training images and one of the test images; the new ones are inverted.

    Args:
        path: Folder of the IDX files.
        rows: Images that history trains on, that are new, and that are held out.
        seed: Of which ones they are.
    """
    source = load(path)
    image, label, test = source.features["image"], source.label, source.test
    assert test is not None
    generator = np.random.default_rng(seed)
    train = generator.permutation(np.flatnonzero(~test))
    held = generator.permutation(np.flatnonzero(test))[: rows[2]]

    def part(chosen: npt.NDArray[np.intp], *, inverted: bool) -> datasets.Dataset:
        at = np.concatenate([chosen, held])
        pixels = 255 - image[at] if inverted else image[at]
        return dataset(
            {"image": pixels},
            label=label[at],
            split=np.repeat(["train", "holdout"], [len(chosen), len(held)]),
            group=at.astype(str),
        )

    end = rows[0] + rows[1]
    return part(train[: rows[0]], inverted=False), part(train[rows[0] : end], inverted=True)


DRIFTS = {
    "digits": Drift(
        windows=_digits, model=lambda: MLP(inputs=64, classes=10), batch=64, steps=1000
    ),
    "fashion": Drift(
        windows=partial(fashion, "published:fashion-mnist", (8_000, 4_000, 1_500)),
        model=lambda: ConvNet(widths=[16, 32]),
        batch=64,
        steps=1500,
    ),
}


def held_out(windows: Windows) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and labels of both holdouts, as a model gets them."""
    found = {}
    for name, window in zip(("history", "new"), windows, strict=True):
        read = read_rows(window, name=name, split_column="split", group_column="group")
        held = read.rows.take(np.flatnonzero(read.declared_role == "holdout"))
        found[name] = to_data(held, form="tuple", label="label")
    return found


def trained(
    drift: Drift,
    windows: Windows,
    *,
    methods: Callable[[], Sequence[Method]],
    lr: float,
    seed: int,
    steps: int,
    goal: Mapping[str, float] | None = None,
) -> list[Point]:
    """One cycle with some methods, else as the default configuration has it, watched.

    Args:
        drift: What is trained, and how.
        windows: History, which founds the lineage, and new rows.
        methods: Of both trainings.
        lr: AdamW's learning rate.
        seed: Of everything random.
        steps: Of the cycle.
        goal: Accuracies that end it early.
    """
    watch = Watch(moments=moments(steps), held=held_out(windows), goal=goal)
    # who drops the champion needs none that was trained
    founding = 1 if any(method.drops_champion for method in methods()) else drift.steps

    def change(cycle: Cycle, number: int) -> Cycle:
        length = founding if number == 1 else steps
        return replace(cycle, training=replace(cycle.training, max_steps=length))

    with suppress(Reached):
        backtest(
            windows,
            model=drift.model,
            optimizer=partial(torch.optim.AdamW, lr=lr, weight_decay=WEIGHT_DECAY),
            methods=lambda number: [*methods(), *([watch] if number == 2 else [])],
            data=Data(memory=Memory(seed=seed), split_column="split", group_column="group"),
            training=Training(
                batch_size=drift.batch,
                validate_every=LONGER * drift.steps,
                keep="last",
                accelerator="cpu",
            ),
            promotion="always",
            seed=seed,
            change=change,
        )
    return watch.points


def compared(drift: Drift, seed: int) -> dict[str, Any]:
    """One seed: the goal, and what either way needs to reach it.

    A default that never reaches it counts with all the steps that it took.
    """
    windows = drift.windows(seed)
    anew = {
        lr: trained(
            drift, windows, methods=lambda: [Scratch()], lr=lr, seed=seed, steps=drift.steps
        )
        for lr in RATES
    }
    end = max((points[-1] for points in anew.values()), key=lambda one: one.history + one.new)
    goal = {"history": end.history - SLACK, "new": end.new - SLACK}
    arrived = {lr: point for lr, points in anew.items() if (point := reached(points, goal))}
    lr = min(arrived, key=lambda one: arrived[one].step)
    points = trained(
        drift,
        windows,
        methods=lambda: [Replay(new_fraction=NEW_FRACTION), EWC()],
        lr=DEFAULT_RATE,
        seed=seed,
        steps=LONGER * drift.steps,
        goal=goal,
    )
    arrival = {"scratch": arrived[lr], "default": points[-1]}
    return {
        "seed": seed,
        "goal": goal,
        "ends": {f"{rate:g}": asdict(found[-1]) for rate, found in anew.items()},
        "scratch_lr": lr,
        "reached": reached(points, goal) is not None,
        **{
            name: {**asdict(point), "rows": point.step * drift.batch}
            for name, point in arrival.items()
        },
        "curve": [asdict(point) for point in points],
    }


def shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the default needs over what the new model needs, in the sum over seeds."""
    return {
        key: sum(row["default"][key] for row in rows) / sum(row["scratch"][key] for row in rows)
        for key in ("rows", "seconds")
    }


def show(name: str, row: Mapping[str, Any]) -> None:
    """One line of the table."""
    goal = "  ".join(f"{key} {100 * value:5.1f}" for key, value in row["goal"].items())
    told = "  ".join(
        f"{arm} {row[arm]['step']:5d} steps {row[arm]['rows']:7d} rows {row[arm]['seconds']:6.1f} s"
        for arm in ("scratch", "default")
    )
    missed = "" if row["reached"] else "  (not reached)"
    print(
        f"{name} seed {row['seed']}: goal {goal}  lr {row['scratch_lr']:g}  {told}{missed}",
        flush=True,
    )


def main() -> None:
    """Print the table and the bars; exit 1 where one is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drift", nargs="+", choices=list(DRIFTS), default=list(DRIFTS))
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument("--reduced", action="store_true", help="one seed, a twentieth of the steps")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    bars = []
    for name in chosen.drift:
        drift, seeds = DRIFTS[name], chosen.seeds
        if chosen.reduced:
            drift, seeds = replace(drift, steps=drift.steps // 20), 1
        mine = []
        for seed in range(seeds):
            mine.append({"drift": name, **compared(drift, seed)})
            show(name, mine[-1])
        found = shares(mine)
        print(f"{name}: CPU time of the default over the new model's {found['seconds']:.2f}")
        bars.append(bar(f"{name}: rows over the new model's", found["rows"], SHARE, higher=False))
        rows += mine
    finish(rows, bars, chosen.json)


if __name__ == "__main__":
    main()
