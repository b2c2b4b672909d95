"""What a cycle is given: built objects and plain values, from `perennial.cli` or from a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from perennial.data.opening import remembered
from perennial.data.preprocess import Preprocessor, check_same, describe, restored
from perennial.data.split import split_salt
from perennial.environment import capture
from perennial.errors import ConfigError, MethodError
from perennial.files import digest
from perennial.masking import plain
from perennial.methods.base import Method
from perennial.models.head import Head
from perennial.monitoring.triggers import Manual, Trigger
from perennial.notification import Notifier, Silent
from perennial.promotion.policy import Policy
from perennial.promotion.registry import Registry, Version
from perennial.steps.collect import Data, Parts
from perennial.steps.learner import Constructor, Learner, build_learner
from perennial.sweeping.trial import Trial
from perennial.training.optimizer import OptimizerFactory
from perennial.training.settings import Training
from perennial.types import Show, show_nothing


@dataclass(kw_only=True)
class Cycle:
    """One retraining cycle's ingredients.

    Attributes:
        name: Of the lineage.
        data: Sources.
        model: Constructor.
        task: What the model is for.
        methods: Builds fresh methods.
        optimizer: Partial of an optimizer's constructor.
        training: Length and manner.
        policy: The gate's.
        registry: Where versions live.
        tracker: Logs the run.
        trigger: Says whether the cycle is due; no part of its identity.
        notifier: Is told the verdict.
        config: The resolved configuration as plain values, without run and tracking: part of the
            cycle's identity.
        seed: Of everything random.
        checkpoint: Path that founds the lineage, or None.
        history: ``all`` or ``memory``.
        promote: Whether the alias may move at all.
        promotion: ``gate``: to what the gate promotes; ``always``: to every candidate, whatever the
            verdict, which is recorded as it was, and however few rows there are to decide on.
        trial: Of a sweep, what it was told: its alias never moves, and it is no decision of its
            own. None for a run on its own.
        force: Decide again what was decided.
        folder: Run folder for result and report.
        report: Whether the page ``report.html`` is drawn.
        dry: Check everything, write nothing.
        say: Shows a line.
        say_last: Shows a line below what the cycle came to.
        progress: Names a phase and gives the function that shows its progress.
    """

    name: str
    data: Data
    model: Constructor
    task: Any
    methods: Callable[[], Sequence[Method]]
    optimizer: OptimizerFactory
    training: Training
    policy: Policy
    registry: Registry
    tracker: Any
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    checkpoint: str | None = None
    history: str = "all"
    promote: bool = True
    promotion: str = "gate"
    trial: Trial | None = None
    trigger: Trigger = field(default_factory=Manual)
    notifier: Notifier = field(default_factory=Silent)
    force: bool = False
    dry: bool = False
    report: bool = True
    say: Callable[[str], None] = lambda line: None
    say_last: Callable[[str], None] = lambda line: None
    progress: Callable[[str], Show] = lambda phase: show_nothing

    def __post_init__(self) -> None:
        self.data = self.data.for_task(self.task)

    def seed_everything(self) -> None:
        """Set every generator; called before each phase, so that a resumed run draws the same."""
        pl.seed_everything(self.seed, workers=True, verbose=False)

    def on(self, known: Sequence[Any]) -> Cycle:
        """With dated partitions made explicit.

        Args:
            known: Sources of the lineage's cycles; none where it is to be founded.

        Raises:
            DataError: A folder of partitions is not right.
        """
        return replace(self, data=self.data.on(known))

    def stored_preprocess(self, champion: Version) -> Preprocessor | None:
        """What the champion was trained with.

        Raises:
            ConfigError: The configuration declares another preprocessing.
        """
        given = self.data.preprocess
        own = type(given)
        stored = restored(
            champion.manifest["preprocess"],
            lambda path: champion.open(path).read_bytes(),
            allow=() if given is None else [f"{own.__module__}.{own.__qualname__}"],
            ref=champion.id,
        )
        check_same(given, stored, ref=champion.id, where="data.preprocess")
        return stored

    def learner(
        self, champion: Version | None = None, *, preprocess: Preprocessor | None = None
    ) -> Learner:
        """A fresh model in its module.

        Args:
            champion: Makes it as wide as itself, and brings its preprocessing.
            preprocess: Fitted, where there is no champion yet.

        Raises:
            ConfigError: The champion is of another adapter or preprocessing.
            MethodError: A method weighs factors that no version keeps.
        """
        if self.model.adapter is not None and self.model.adapter.store == "merged":
            weighing = [method.name for method in self.methods() if method.weighs_parameters]
            if weighing:
                raise MethodError(
                    f"{' and '.join(weighing)} weighs every parameter for the next cycle, and "
                    "merged factors do not go on.",
                    where="model.adapter.store",
                    mend="use model.adapter.store=adapter, or method=replay, lwf or interpolation",
                )
        return build_learner(
            model=self.model if champion is None else self._as_served(champion),
            task=self.task,
            optimizer=self.optimizer,
            device=self.training.device(),
            form=self.data.form,
            label=self.data.label,
            preprocess=self.stored_preprocess(champion) if champion else preprocess,
        )

    @property
    def policy_settings(self) -> dict[str, Any] | None:
        """The policy as it was configured, in plain values; None where it was built by hand."""
        settings: dict[str, Any] | None = plain(self.config).get("gate")
        return settings

    def _as_served(self, champion: Version) -> Constructor:
        """The configured model as the champion's manifest has it."""
        served = champion.manifest["model"]
        adapter = self.model.adapter
        now = adapter.describe() if adapter and adapter.store == "adapter" else None
        if "adapter" in served and served["adapter"] != now:
            raise ConfigError(
                f"{champion.id} is an adapter of {served['adapter']}; now it is {now}.",
                where="model.adapter",
                mend="leave it as it was, or found a lineage of its own with "
                f"model_name={self.name}-2",
            )
        head = Head(**served["head"]) if "head" in served else None
        return replace(
            self.model,
            head=head,
            recorded=served.get("recorded", {}),
            carried=served.get("carried", {}),
        )

    def work_folder(self, cycle_id: str) -> Path:
        """Where an interrupted cycle goes on."""
        return self.registry.work_folder(cycle_id)

    def config_sha256(self) -> str:
        """Hash of the resolved configuration."""
        return digest(self.config)

    def founding(self) -> dict[str, Any]:
        """What a lineage keeps from its founding on: its salt, and what tells rows apart."""
        return {"salt": split_salt(self.name, self.seed), **self.data.identity}

    def founding_id(self, fingerprint: str) -> str:
        """Identity of the work that makes version 1."""
        return digest([self.name, fingerprint, self.config])[:32]

    def cycle_id(self, champion: Version, fingerprints: Mapping[str, str]) -> str:
        """Identity of one pass from these data and this champion under this configuration."""
        return digest([self.name, champion.number, dict(fingerprints), self.config])[:32]

    def manifest(
        self,
        *,
        parts: Parts,
        source: Any,
        cycle: str,
        parent: Version | None,
        sources: Mapping[str, Any],
        metrics: Mapping[str, Any],
        matrix: Sequence[Any],
        initial: Mapping[str, float],
        how: str,
        extra: Mapping[str, Any],
        learner: Learner,
    ) -> dict[str, Any]:
        """``version.yaml``: constructor names and arguments as data, and where it all came from."""
        kept = remembered(source)
        own = {} if kept is None else {cycle: kept}
        return {
            "how": how,
            "parent": parent.number if parent else None,
            "model": learner.constructor.describe(),
            "preprocess": describe(learner.preprocess),
            "task": {
                "target": f"{type(self.task).__module__}.{type(self.task).__qualname__}",
                "arguments": plain(self.task.arguments),
                "kind": self.task.target_kind,
                "score": {"name": self.task.score_name, "unit": self.task.score_unit},
            },
            "label_names": list(parts.label_names),
            "schema": dict(parts.schema),
            "columns": {
                "label": self.data.label,
                "features": list(parts.train.features) or list(parts.holdout.features),
                "form": self.data.form,
            },
            "sources": {**sources, **own},
            "lineage": parent.manifest["lineage"] if parent else self.founding(),
            "data": {"fingerprint": parts.fingerprint, "rows": len(parts.train)},
            "metrics": dict(metrics),
            "matrix": list(matrix),
            "initial": dict(initial),
            "seed": self.seed,
            "config": plain(self.config),
            "environment": capture(str(self.training.device())),
            **extra,
        }
