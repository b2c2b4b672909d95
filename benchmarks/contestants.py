"""What is compared: every method with its main knob, and one run of it through the real cycle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from protocols import SeenSoFar, Series
from torch import Tensor

from perennial.backtest import Backtest, backtest
from perennial.data.memory import Memory
from perennial.methods.agem import AGEM
from perennial.methods.base import Method
from perennial.methods.baselines import Joint, Scratch
from perennial.methods.der import DER
from perennial.methods.ewc import EWC
from perennial.methods.interpolation import Interpolation
from perennial.methods.l2sp import L2SP
from perennial.methods.lwf import LwF
from perennial.methods.replay import Replay
from perennial.methods.si import SI
from perennial.models.reference import MLP
from perennial.steps.collect import Data
from perennial.steps.settings import Cycle
from perennial.tasks.classification import Classification
from perennial.training.settings import Training

if TYPE_CHECKING:
    from perennial.types import MethodContext, StepContext


class KeptOptimizer(Method):
    """One optimizer over all contexts: its state goes from cycle to cycle with the version."""

    name: ClassVar[str] = "optimizer"
    learns_from_training: ClassVar[bool] = True

    def __init__(self) -> None:
        self._stored: Mapping[str, Tensor] = {}
        self._step: StepContext | None = None

    def prepare(self, context: MethodContext) -> None:
        """Take the state that the champion's training left."""
        self._stored = context.champion.methods.get("optimizer", {})

    def observe_gradients(self, step: StepContext) -> None:
        """Before the first step, put the state in."""
        self._step = step
        for name, value in self._stored.items():
            parameter, _, key = name.rpartition("/")
            step.optimizer.state[step.parameters[parameter]][key] = value.clone()
        self._stored = {}

    def finish(self, context: MethodContext) -> dict[str, Tensor]:
        """Leave the state."""
        return dict(self.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        self._stored = dict(state)

    def state_dict(self) -> dict[str, Tensor]:
        """The optimizer's state by parameter and name."""
        if self._step is None:
            return dict(self._stored)
        return {
            f"{name}/{key}": value.detach().cpu().clone()
            for name, parameter in self._step.parameters.items()
            for key, value in self._step.optimizer.state[parameter].items()
        }


@dataclass(frozen=True)
class Contestant:
    """A way to retrain.

    Attributes:
        build: Number of the context, from 1, and the knob's value to methods.
        knob: What the value is.
        default: The value where none is chosen.
        grid: Values to choose from.
        replays: Whether a batch of replayed rows joins the new ones.
        history: ``all`` where every earlier row is used, else ``memory``.
        validates: Whether validation rows are needed.
        keeps_optimizer: Whether one optimizer goes through all contexts.
    """

    build: Callable[[int, float], Sequence[Method]]
    knob: str = ""
    default: float = 0.0
    grid: tuple[float, ...] = ()
    replays: bool = False
    history: str = "memory"
    validates: bool = False
    keeps_optimizer: bool = True


def replay(context: int) -> Replay:
    """Half of the batch replayed; the new rows' loss counts 1 / t, the replayed ones' the rest."""
    return Replay(new_fraction=0.5, new_weight=1 / max(context, 2))


CONTESTANTS: dict[str, Contestant] = {
    "none": Contestant(lambda context, knob: []),
    "replay": Contestant(lambda context, knob: [replay(context)], replays=True),
    "der": Contestant(
        lambda context, knob: [replay(context), DER(alpha=knob)],
        knob="alpha",
        default=0.1,
        replays=True,
    ),
    "default": Contestant(
        lambda context, knob: [replay(context), EWC(strength=knob)],
        knob="EWC's strength",
        default=0.01,
        replays=True,
    ),
    "ewc": Contestant(
        lambda context, knob: [EWC(strength=knob, fisher="true")],
        knob="strength",
        default=1.0,
        grid=(100, 300, 1e3, 3e3, 1e4),
    ),
    "ewc proximal": Contestant(
        lambda context, knob: [EWC(strength=knob, fisher="true", step="proximal")],
        knob="strength",
        default=1.0,
        grid=(100, 300, 1e3, 3e3, 1e4),
    ),
    "si": Contestant(
        lambda context, knob: [SI(strength=knob)],
        knob="strength",
        default=1.0,
        grid=(0.1, 1, 10, 100),
    ),
    "l2sp": Contestant(
        lambda context, knob: [L2SP(strength=knob)],
        knob="strength",
        default=0.01,
        grid=(1e-3, 1e-2, 0.1, 1),
    ),
    "lwf": Contestant(
        lambda context, knob: [LwF(strength=knob)],
        knob="strength",
        default=1.0,
        grid=(0.3, 1, 3, 10),
    ),
    "agem": Contestant(lambda context, knob: [AGEM(rows=64)]),
    "interpolation": Contestant(
        lambda context, knob: [replay(context), Interpolation(budget=knob)],
        knob="budget",
        default=0.0,
        replays=True,
        validates=True,
    ),
    "joint": Contestant(lambda context, knob: [Joint()], history="all"),
    "scratch": Contestant(lambda context, knob: [Scratch()], history="all", keeps_optimizer=False),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Model and training of a comparison.

    Attributes:
        hidden: Widths of the hidden layers.
        lr: Adam's learning rate.
        iterations: Optimizer steps a context.
        batch: New rows of a batch; replay adds as many.
        memory_per_class: Rows of each class seen that memory keeps.
        equal: ``steps``, or ``passes``: whose batches hold fewer new rows takes more steps.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
    """

    hidden: tuple[int, ...] = (100, 100)
    lr: float = 1e-3
    iterations: int = 300
    batch: int = 64
    memory_per_class: int = 20
    equal: str = "steps"
    accelerator: str = "auto"


def compete(
    contestant: Contestant,
    series: Series,
    *,
    scenario: str,
    setting: Setting,
    seed: int,
    knob: float,
) -> Backtest:
    """One contestant through one series, every candidate promoted."""
    keeps = [KeptOptimizer] if contestant.keeps_optimizer else []

    def change(cycle: Cycle, number: int) -> Cycle:
        seen = series.per_context * number
        rows = setting.memory_per_class * seen
        mixes = contestant.replays and number > 1
        return replace(
            cycle,
            task=SeenSoFar(seen=seen) if scenario == "class" else Classification(),
            data=replace(
                cycle.data, memory=Memory(capacity=rows, seed=seed, selection="class_balanced")
            ),
            training=replace(
                cycle.training,
                batch_size=setting.batch * (2 if mixes else 1),
                max_steps=_steps(contestant, series, setting, number),
            ),
        )

    return backtest(
        series.windows,
        model=lambda: MLP(inputs=series.inputs, classes=series.outputs, hidden=setting.hidden),
        optimizer=partial(torch.optim.Adam, lr=setting.lr),
        methods=lambda number: [*contestant.build(number, knob), *(keep() for keep in keeps)],
        data=Data(
            memory=Memory(),
            id_column="id",
            split_column="split",
            duplicates="allow",
            validation_fraction=0.1 if contestant.validates else 0.0,
            sampling="replacement",
        ),
        training=Training(keep="last", gradient_clip=None, accelerator=setting.accelerator),
        promotion="always",
        history=contestant.history,
        seed=seed,
        change=change,
    )


def _steps(contestant: Contestant, series: Series, setting: Setting, number: int) -> int:
    """Steps of a context; at equal passes, more of them where history takes the new rows' place."""
    if setting.equal == "steps" or contestant.history != "all" or number == 1:
        return setting.iterations
    sizes = [list(window["split"]).count("train") for window in series.windows[:number]]
    fresh = max(round(setting.batch * sizes[-1] / sum(sizes)), 1)
    return round(setting.iterations * setting.batch / fresh)
