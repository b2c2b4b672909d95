"""What one cycle learns from and is judged on, and what is said of it before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from perennial.data.learned import ROLES, Learned
from perennial.data.rows import concatenate
from perennial.data.shards import bounds_line, read_index
from perennial.data.split import independent
from perennial.errors import MethodError
from perennial.files import digest
from perennial.methods.base import Method
from perennial.promotion.multiplicity import Charge, charge, decisions_on
from perennial.promotion.registry import Version
from perennial.promotion.requirements import require_decidable
from perennial.steps.collect import Parts, collect_new, require_training_rows
from perennial.steps.given import Given, collect_given
from perennial.steps.history import History, collect_history
from perennial.steps.judge import Held, distinct, require_measurable
from perennial.steps.learner import Learner
from perennial.steps.lineage import Lineage, lineage_of, refuse_another_identity
from perennial.steps.remember import index_path, logits_bytes, stored_dtype
from perennial.steps.settings import Cycle


@dataclass(frozen=True)
class Material:
    """One cycle's rows.

    Attributes:
        lineage: Its champion, and what it has met.
        given: The user's own test set, where it joins now.
        new: The new rows, split.
        history: History to replay from and to validate on.
    """

    lineage: Lineage
    given: Given | None
    new: Parts
    history: History

    @property
    def has_new(self) -> bool:
        """Whether there is anything to learn."""
        return bool(len(self.new.train))

    @property
    def fingerprints(self) -> dict[str, str]:
        """Source to SHA-256."""
        given = {"history_holdout": self.given.fingerprint} if self.given else {}
        return {"new": self.new.fingerprint, **self.history.fingerprints, **given}

    @property
    def name(self) -> str:
        """Of the holdout that this cycle adds, ``cycle-<number>``."""
        return f"cycle-{self.lineage.next_number + bool(self.given)}"

    @property
    def new_holdout(self) -> str:
        """SHA-256 of the new holdout, however its rows are ordered."""
        return digest(sorted(self.new.holdout.content.tolist()))

    @cached_property
    def held(self) -> Held:
        """Every holdout that judges, with its mask of rows that the champion has seen.

        After a rollback the holdouts of cycles that the champion never learned are left out: it has
        nothing of them to lose, and what a candidate gains there would hide what it loses.
        """
        own = self.lineage.champion
        old = {
            name: held
            for name, held in self.lineage.holdouts(self.new.label_names).items()
            if self.lineage.cycles[name.partition("/")[2]][0] is own
        }
        if self.given:
            old[f"history/{self.given.name}"] = (self.given.rows, self.given.seen)
        return {"new": (self.new.holdout, self.new.seen), **old}

    def charge(self, cycle: Cycle, cycle_id: str) -> Charge:
        """What a decision on the new holdout is charged for those before it."""
        earlier = decisions_on(
            cycle.registry,
            self.lineage.champion,
            new_holdout=self.new_holdout,
            row_id=distinct(self.new.holdout.id),
        )
        return charge(earlier, cycle_id=cycle_id, trial=cycle.trial is not None)


def collect(cycle: Cycle, champion: Version) -> Material:
    """Open, validate, fingerprint and split; history only where there is anything new.

    Raises:
        DataError: The rows cannot be used, or too few are left to train on.
        ConfigError: A setting would give the lineage another identity, or the policy names a metric
            or a slice column that is not to be had.
    """
    cycle.stored_preprocess(champion)  # a declared one that differs is refused before any reading
    refuse_another_identity(champion, identity=cycle.data.identity, labels=cycle.task.labels)
    lineage = lineage_of(cycle.registry, champion)
    given = collect_given(cycle.data, lineage=lineage)
    learned = Learned.joined([lineage.learned, *([given.learned] if given else [])])
    new = collect_new(cycle.data, lineage=lineage, learned=learned)
    for note in (*([given.note] if given else []), *new.notes):
        cycle.say(note)
    require_training_rows(new)
    history = History()
    if len(new.train):
        history = collect_history(
            cycle.data,
            lineage=lineage,
            learned=learned,
            names=new.label_names,
            source=cycle.history,
        )
    material = Material(lineage=lineage, given=given, new=new, history=history)
    require_measurable(
        cycle.policy,
        [rows for rows, _ in material.held.values()],
        classes=len(new.label_names),
        kind=cycle.task.target_kind,
    )
    return material


def refuse_what_cannot_work(
    cycle: Cycle, material: Material, methods: Sequence[Method], *, decision_number: int
) -> None:
    """Say before training what would only show after it.

    Raises:
        DataError: The holdouts are too small to decide anything.
        MethodError: A method needs history, and there is none.
        ConfigError: A row takes too much of memory.
    """
    cycle.data.memory.check(
        material.new.train,
        name="new",
        logits_bytes=logits_bytes(stored_dtype(methods), material.new.label_names),
    )
    if cycle.promotion == "gate":
        rows = {name: independent(rows) for name, (rows, _) in material.held.items()}
        require_decidable(
            {name: count for name, count in rows.items() if count or name == "new"},
            cycle.policy,
            decision_number=decision_number,
            binary=cycle.task.binary,
        )
    whole = [method.name for method in methods if method.needs_all_history]
    missing = material.history.missing
    if whole and missing and cycle.history == "all":
        raise MethodError(
            f"All of history is what {' and '.join(whole)} means, and "
            f"{sum(missing.values())} training rows of it are gone: "
            + ", ".join(f"{number} of {name}" for name, number in missing.items())
            + "; memory does not keep them.",
            where="data.history",
            mend="restore the source, give its rows as data.history=PATH, or use method=replay",
        )
    if whole and cycle.history == "memory":
        raise MethodError(
            f"All of history is what {' and '.join(whole)} means, and history=memory is a sample.",
            where="history",
            mend="use history=all, or method=replay",
        )
    needing = [method.name for method in methods if method.needs_history]
    if needing and material.history.train is None:
        raise MethodError(
            f"History is needed by {' and '.join(needing)}, and none can be read.",
            where="data.history",
            mend="give data.history=PATH, or go without: method=lwf, l2sp or none",
        )


def _unknown(new: Parts, learner: Learner) -> list[str]:
    """Lines about new rows that the candidate's preprocessing will not know."""
    if learner.preprocess is None:
        return []
    rows = concatenate([getattr(new, kind) for kind in ROLES])
    return learner.preprocess.knowing(new.label_names).notes(rows.features, name="new")


def _memory_notes(cycle: Cycle, champion: Version) -> list[str]:
    """A line where memory is bounded otherwise than it was."""
    if (path := index_path("train")) not in champion.files:
        return []
    stored = read_index(champion.open(path))
    line = bounds_line(stored.bound, cycle.data.memory.bound, len(stored.place))
    return [line] if line else []


def announce(cycle: Cycle, material: Material, methods: Sequence[Method], learner: Learner) -> None:
    """Tell the user what is about to be trained."""
    history = material.history
    for note in (
        *_memory_notes(cycle, material.lineage.champion),
        *history.notes,
        *learner.notes,
        *_unknown(material.new, learner),
    ):
        cycle.say(note)
    cycle.say(
        f"Retraining {material.lineage.champion.id} on {len(material.new.train)} new rows"
        + (f" and {len(history.train)} of history" if history.train is not None else "")
        + f" with {' + '.join(method.name for method in methods) or 'no method'}"
        f", {cycle.training.max_steps} steps, on {learner.device}"
    )
