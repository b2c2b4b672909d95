"""A sweep's trials in an Optuna study: drawn, run in groups, recorded, gone on with.

What is drawn for trial n depends on the sweep's seed, on n and on what was recorded before it, and
never on when the sweep was stopped.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perennial.errors import ConfigError, first_line
from perennial.sweeping.choice import objective_values
from perennial.sweeping.mix import SHARE, next_shares
from perennial.sweeping.pruning import Limits, limits
from perennial.sweeping.settings import Sweep
from perennial.sweeping.space import Parameter, Value, points, size
from perennial.sweeping.storage import check_storage, reached
from perennial.sweeping.trial import Outcome

OUTCOME, SAME, IDENTITY = "outcome", "same_as", "identity"
# draws that were all met before, after which a small space counts as searched
DOUBLES = 100
Job = tuple[int, dict[str, Value]]
Run = Callable[[Sequence[Job], Limits], Sequence[Outcome]]


@dataclass(frozen=True)
class Ended:
    """A trial of the study that came to an end, with what it was run with."""

    number: int
    params: dict[str, Value]
    outcome: Outcome


class NothingToLearn(Exception):  # noqa: N818
    """There are no new rows, for this trial and for every other one."""


class Study:
    """Trials of one sweep.

    Args:
        name: Of the study.
        storage: URL of the database, which keeps many studies.
        space: What is searched.
        settings: How.
        identity: What makes it this sweep, as plain values; another one under the same name is
            refused.

    Raises:
        ConfigError: Another sweep has this name, or Optuna is not installed.
        RegistryError: The storage cannot be reached.
    """

    def __init__(
        self,
        *,
        name: str,
        storage: str,
        space: Sequence[Parameter],
        settings: Sweep,
        identity: Mapping[str, Any],
    ) -> None:
        self.name, self.space, self.settings = name, list(space), settings
        self._optuna = _optuna()
        self.storage = storage
        self._study = _open(self._optuna, name, storage, settings)
        with reached(storage):
            stored = self._study.user_attrs.get(IDENTITY)
            if stored is None:
                self._study.set_user_attr(IDENTITY, dict(identity))
        if stored is not None and stored != json.loads(json.dumps(identity)):
            changed = [key for key in identity if identity[key] != stored.get(key)]
            raise ConfigError(
                f"The study {name!r} is of another sweep: {' and '.join(changed)} differ.",
                where="sweep.study",
                mend="give another name, or leave sweep.study out: each sweep then has its own",
            )

    def ended(self) -> list[Ended]:
        """Trials that came to an end, each setting once, by number."""
        with reached(self.storage):
            trials = self._trials()
        return [
            Ended(one.number, dict(one.params), Outcome(**one.user_attrs[OUTCOME]))
            for one in trials
            if one.state.is_finished() and OUTCOME in one.user_attrs and SAME not in one.user_attrs
        ]

    def run(self, run: Run, *, before: Callable[[], None] = lambda: None) -> list[Ended]:
        """Go on until there are as many trials as were asked for.

        Args:
            run: Runs a group of numbered settings side by side under limits of pruning.
            before: Called before each group; may raise.

        Returns:
            All that ended, earlier ones included.

        Raises:
            NothingToLearn: A trial was skipped, as all of them would be; it is not recorded.
            RegistryError: The storage is lost; what ended lies in the trials' folders.
        """
        while group := self._group():
            before()
            jobs = [(one.number, dict(one.params)) for one in group]
            outcomes = run(jobs, self._limits())
            with reached(self.storage):
                for trial, outcome in zip(group, outcomes, strict=True):
                    if outcome.state != "skipped":
                        self._tell(trial, outcome)
            if skipped := [one for one in outcomes if one.state == "skipped"]:
                raise NothingToLearn(str(skipped[0].reason))
        return self.ended()

    def _group(self) -> list[Any]:
        with reached(self.storage):
            return self._interrupted() or self._draw()

    def _trials(self) -> list[Any]:
        found: list[Any] = self._study.get_trials(deepcopy=False)
        return found

    def _limits(self) -> Limits:
        if self.settings.pruner is None:
            return {}
        curves = [one.outcome.curve for one in self.ended() if one.outcome.state == "finished"]
        return limits(curves, objectives=self.settings.objectives, warmup=self.settings.warmup)

    def _interrupted(self) -> list[Any]:
        """Trials that a stopped sweep left running, to be run again with their settings."""
        states = self._optuna.trial.TrialState
        left = []
        for one in self._trials():
            if one.state != states.RUNNING:
                continue
            if OUTCOME in one.user_attrs:  # stopped between the two halves of its record
                self._finish(one, Outcome(**one.user_attrs[OUTCOME]))
            elif set(one.params) != {parameter.name for parameter in self._searched()}:
                self._study.tell(one.number, state=states.FAIL)  # stopped while it was drawn
            else:
                left.append(one)
        return left[: self.settings.jobs]

    def _draw(self) -> list[Any]:
        """The next group: settings that no trial has had."""
        done = len(self.ended())
        total = self.settings.trials
        room = self.settings.jobs if total is None else min(self.settings.jobs, total - done)
        if room <= 0:
            return []
        if self.settings.sampler in ("grid", "mix"):
            return [self._ask_for(params) for params in self._listed()[:room]]
        return self._drawn(room)

    def _searched(self) -> list[Parameter]:
        if self.settings.sampler == "mix":
            return [Parameter(name=SHARE, low=0.0, high=1.0)]
        return self.space

    def _listed(self) -> list[dict[str, Value]]:
        """What a sampler with a list of its own has left."""
        tried = {_key(one.params): one.outcome for one in self.ended()}
        if self.settings.sampler == "grid":
            unique = {_key(point): point for point in points(self.space)}
            return [point for key, point in unique.items() if key not in tried]
        measured = {
            float(one.params[SHARE]): (one.outcome.scores, one.outcome.champion)
            if one.outcome.state == "finished"
            else None
            for one in self.ended()
        }
        shares = next_shares(
            measured,
            grid=self.settings.values,
            budget=self.settings.budget,
            rounds=self.settings.refine,
        )
        return [{SHARE: share} for share in shares]

    def _drawn(self, room: int) -> list[Any]:
        """What a sampler draws at random, each setting once."""
        group: list[Any] = []
        all_of_them = size(self.space)
        doubles = 0
        while len(group) < room and doubles < DOUBLES:
            known = {_key(one.params): one for one in self.ended()}
            waiting = {_key(one.params) for one in group}
            if all_of_them is not None and len(known) + len(waiting) >= all_of_them:
                break
            trial = self._ask()
            key = _key(trial.params)
            if key in waiting:
                self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
                doubles += 1
            elif key in known:
                self._study._storage.set_trial_user_attr(trial._trial_id, SAME, known[key].number)
                self._tell(trial, known[key].outcome)
                doubles += 1
            else:
                group.append(trial)
        return group

    def _ask(self) -> Any:
        self._study.sampler = self._sampler(len(self._trials()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            asked = self._study.ask(_distributions(self._optuna, self._searched()))
        return self._frozen(asked.number)

    def _ask_for(self, params: dict[str, Value]) -> Any:
        states = self._optuna.trial.TrialState
        if not any(one.state == states.WAITING and one.params == params for one in self._trials()):
            self._study.enqueue_trial(params)
        return self._ask()

    def _frozen(self, number: int) -> Any:
        return next(one for one in self._trials() if one.number == number)

    def _sampler(self, place: int) -> Any:
        """A sampler as it would be at this place, however often the sweep was stopped."""
        words = f"{self.settings.seed}/{place}".encode()
        seed = int.from_bytes(hashlib.sha256(words).digest()[:4], "big")
        samplers = self._optuna.samplers
        if self.settings.sampler != "tpe":
            return samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            return samplers.TPESampler(seed=seed, constant_liar=self.settings.jobs > 1)

    def _tell(self, trial: Any, outcome: Outcome) -> None:
        # first what happened, then that it is over: a sweep killed in between finds both
        self._study._storage.set_trial_user_attr(trial._trial_id, OUTCOME, outcome.to_dict())
        self._finish(trial, outcome)

    def _finish(self, trial: Any, outcome: Outcome) -> None:
        states = self._optuna.trial.TrialState
        values = objective_values(outcome.scores, self.settings.objectives)
        if outcome.state == "finished" and values is not None:
            self._study.tell(trial.number, values)
        else:
            state = states.PRUNED if outcome.state == "pruned" else states.FAIL
            self._study.tell(trial.number, state=state)


def _key(params: Mapping[str, Value]) -> str:
    return json.dumps(params, sort_keys=True)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "A sweep needs Optuna, which is not installed.",
            where="sweep",
            mend="pip install 'perennial[sweep]', or leave sweep out: -m alone runs every "
            "combination",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _open(optuna: Any, name: str, storage: str, settings: Sweep) -> Any:
    from sqlalchemy import NullPool

    check_storage(storage)
    try:
        # no connection is kept over the hours that a trial may take, nor into a fork
        with reached(storage):
            kept = optuna.storages.RDBStorage(storage, engine_kwargs={"poolclass": NullPool})
            return optuna.create_study(
                study_name=name,
                storage=kept,
                directions=["maximize"] * len(settings.objectives),
                load_if_exists=True,
            )
    except ValueError as error:
        raise ConfigError(
            f"The study {name!r} is of another sweep: {first_line(error)}",
            where="sweep.study",
            mend="give another name, or leave sweep.study out",
        ) from error


def _distributions(optuna: Any, space: Sequence[Parameter]) -> dict[str, Any]:
    made = optuna.distributions

    def of(one: Parameter) -> Any:
        if one.choices:
            return made.CategoricalDistribution(list(dict.fromkeys(one.choices)))
        if one.integer:
            step = int(one.step or 1)
            return made.IntDistribution(int(one.low), int(one.high), log=one.log, step=step)
        return made.FloatDistribution(one.low, one.high, log=one.log, step=one.step)

    return {one.name: of(one) for one in space}
