"""A search: composed from the command line, run by the launcher, told at its end."""

from __future__ import annotations

import json
import multiprocessing
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from hydra_plugins.perennial_sweeper._plain import command
from hydra_plugins.perennial_sweeper._reading import first, for_trials, quoted, read
from hydra_plugins.perennial_sweeper.process import OUTPUT, arguments
from perennial.errors import EXIT_SKIPPED, ConfigError, PerennialError, first_line
from perennial.processes import die_with_parent
from perennial.sweeping.pruning import Limits
from perennial.sweeping.space import Value, check_space, describe, overrides, shown
from perennial.sweeping.storage import alone, check_storage, sqlite
from perennial.sweeping.study import Ended, Job, NothingToLearn, Study
from perennial.sweeping.summary import summary
from perennial.sweeping.trial import TRIAL, Outcome, Trial, outcome_of, read_trial

if TYPE_CHECKING:
    from hydra_plugins.perennial_sweeper.sweeper import PerennialSweeper
    from perennial.promotion.records import Version
    from perennial.promotion.registry import Registry

SHARED = (
    *("model_name", "registry", "checkpoint", "data", "promote", "force", "debug", "dry"),
    *("exit_zero", "tracking", "notify"),
)
# of data, what leaves the rows alone that trials are scored on
FREE = ("data.augment", "data.sampling", "data.memory")


class Search:
    """One sweep, from its command to its page.

    Args:
        sweeper: Composes and launches.
        given: The command's overrides, parsed.
    """

    def __init__(self, sweeper: PerennialSweeper, given: Sequence[Any]) -> None:
        from perennial.launch import build

        assert sweeper.config is not None
        self.sweeper = sweeper
        self.fixed, self.space = read(given)
        self.console = Console(soft_wrap=True)
        settings = _settings(sweeper.config)
        self.settings = settings
        check_space(self.space, sampler=settings.sampler, promises=SHARED, free=FREE)
        composed(self.sweeper, [*self.fixed, *overrides(first(self.space))])
        self.base = composed(self.sweeper, self.fixed)
        _refuse(self.base, settings, launcher=str(sweeper.config.hydra.launcher._target_))
        self._refuse_other_rows()
        if settings.storage is not None:
            check_storage(settings.storage)
        self.registry: Registry = build(self.base["registry"], where="registry")

    def run(self) -> None:
        """Go on until all trials have ended, tell what came of them, and promote where asked.

        Raises:
            PerennialError: Something is wrong with the sweep itself, not with a trial.
            SystemExit: Every trial failed, or the gate's exit code where the best one is promoted.
        """
        champion = self._champion()
        if champion is None:
            _founded(self.base)
            champion = self._champion()
        assert champion is not None
        identity = self._identity(champion)
        name = self.settings.study or self._name(identity)
        config = self.sweeper.config
        assert config is not None
        folder = Path(str(config.hydra.sweep.dir), name).absolute()
        storage = self.settings.storage or sqlite(folder)
        # the folder too: it may be in use for the same name in another storage
        with alone(sqlite(folder), "of.folder"), alone(storage, name) as held:
            study = Study(
                name=name,
                storage=storage,
                space=self.space,
                settings=self.settings,
                identity=identity,
            )
            code = self._locked(study, identity, champion.id, folder, held)
        if code:
            raise SystemExit(code)

    def _locked(
        self,
        study: Study,
        identity: Mapping[str, Any],
        champion: str,
        folder: Path,
        held: Callable[[], None],
    ) -> int:
        from perennial.files import digest

        self._begin(study, champion, folder)
        promised = Trial(
            champion=champion,
            sweep=digest(identity),
            choose=self.settings.choose,
            budget=self.settings.budget,
        )

        def before() -> None:
            serves = self._champion()
            promised.require(None if serves is None else serves.id)
            held()

        def run(jobs: Sequence[Job], limits: Limits) -> list[Outcome]:
            outcomes = self._group(jobs, replace(promised, limits=limits), folder)
            for (number, params), outcome in zip(jobs, outcomes, strict=True):
                self._say(_line(number, params, outcome))
            return outcomes

        try:
            ended = study.run(run, before=before)
        except NothingToLearn as told:
            self._say(f"\nNothing to search with: {told}.")
            return EXIT_SKIPPED if self.settings.promote and not self.base["exit_zero"] else 0
        return self._end(study.name, ended, champion, folder)

    def _begin(self, study: Study, champion: str, folder: Path) -> None:
        assert self.sweeper.config is not None
        with open_dict(self.sweeper.config):
            self.sweeper.config.hydra.sweep.dir = str(folder)
        self.sweeper.start_launcher()
        what = ", ".join(one.name for one in self.space) or "method.replay.new_fraction"
        self._say(f"perennial: sweep {study.name} over {what}, against {champion}")
        if done := len(study.ended()):
            self._say(f"goes on after {done} trial{'s' * (done > 1)}")

    def _group(self, jobs: Sequence[Job], told: Trial, folder: Path) -> list[Outcome]:
        """Run trials side by side; one that cannot even be composed has failed."""
        failed: dict[int, str] = {}
        launched = []
        for number, params in jobs:
            here = folder / str(number)
            own = replace(told, params=dict(params))
            if _result(here, own) is None:
                _clear(here, own)
                own.write(here / TRIAL)
                words = [*for_trials(self.fixed), *overrides(params)]
                words.append(f"trial={quoted(here / TRIAL)}")
                try:
                    composed(self.sweeper, words)
                except PerennialError as error:
                    failed[number] = first_line(error)
                    continue
                place = f"hydra.sweep.dir={quoted(folder)}"
                launched.append([*words, place, f"hydra.sweep.subdir={number}"])
        trouble = "it ended without a result"
        if launched:
            try:
                self.sweeper.launch(launched, first=jobs[0][0])
            except Exception as error:
                # launchers are foreign code, and raise what a worker raised
                trouble = f"{type(error).__name__}: {first_line(error)}"
        return [
            Outcome(state="failed", reason=failed[number])
            if number in failed
            else _outcome(folder / str(number), trouble)
            for number, _ in jobs
        ]

    def _end(self, name: str, ended: Sequence[Ended], champion: str, folder: Path) -> int:
        from perennial.reporting.sweep import print_sweep, write_sweep

        found = summary(
            name=name,
            model=str(self.base["model_name"]),
            champion=champion,
            ended=ended,
            space=self.space,
            settings=self.settings,
            command=self._command({}),
            command_of=self._command,
        )
        write_sweep(folder, found)
        print_sweep(found, self.console, folder=folder)
        if all(one.outcome.state == "failed" for one in ended):
            return 1
        if self.settings.promote is None or found["chosen"] is None:
            return 0
        chosen = next(one for one in ended if one.number == found["chosen"]["number"])
        return self._promote(chosen, folder)

    def _promote(self, chosen: Ended, folder: Path) -> int:
        """The chosen trial's own command without the sweep: the gate decides, at its charge."""
        assert self.sweeper.config is not None
        words = [*by_hand(self.fixed), *overrides(chosen.params)]
        self._say(f"\nTrial {chosen.number} goes through the gate.")
        line = arguments(self.sweeper.config, words, folder / "promotion")
        return subprocess.run(line, check=False, preexec_fn=die_with_parent).returncode  # noqa: S603

    def _champion(self) -> Version | None:
        return self.registry.champion(str(self.base["model_name"]))

    def _refuse_other_rows(self) -> None:
        """Refuse choices of a whole group that change what all trials share."""
        shared = {key: self.base.get(key) for key in SHARED}
        for one in (one for one in self.space if one.choices and "." not in one.name):
            for choice in one.choices:
                try:
                    made = composed(self.sweeper, [*self.fixed, f"{one.name}={choice}"])
                except PerennialError:
                    continue  # it fails as a trial, and is told as one
                if changed := [key for key in shared if made.get(key) != shared[key]]:
                    raise ConfigError(
                        f"{one.name} cannot be searched: {one.name}={choice} changes "
                        f"{' and '.join(changed)}, which all trials share.",
                        where=one.name,
                        mend="run one sweep for each",
                    )

    def _identity(self, champion: Version) -> dict[str, Any]:
        from perennial.files import digest
        from perennial.launch import identity
        from perennial.masking import plain
        from perennial.sweeping.rows import stamps

        return {
            "search space": describe(self.space),
            # an id may be another registry's, or another lineage's of the same name
            "champion": [champion.id, digest([champion.created, champion.manifest])],
            "configuration": digest([identity(self.base), plain(self.base["registry"])]),
            "settings": self.settings.identity(),
            "rows": digest(stamps(self.base["data"])),
        }

    def _name(self, identity: Mapping[str, Any]) -> str:
        from perennial.files import digest

        return f"{self.base['model_name']}-{digest(identity)[:8]}"

    def _command(self, params: Mapping[str, Value]) -> str:
        from perennial.masking import mask_text

        words = [mask_text(word) for word in [*self.fixed, *overrides(params)]]
        return f"{command()} {shlex.join(words)}".strip()

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)


def composed(sweeper: PerennialSweeper, words: Sequence[str]) -> dict[str, Any]:
    """A job's configuration in plain values.

    Raises:
        ConfigError: It cannot be composed.
    """
    from perennial.cli import explain, plain_config

    assert sweeper.hydra_context is not None
    loader = sweeper.hydra_context.config_loader
    try:
        config = loader.load_sweep_config(sweeper.config, list(words))
        with open_dict(config):
            del config["hydra"]
        return plain_config(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, "train") from error


def require_champion(sweeper: PerennialSweeper, given: Sequence[Any]) -> None:
    """Make a lineage's first version, so that jobs side by side do not all make one."""
    from perennial.launch import build

    base = composed(sweeper, read(given)[0])
    registry: Registry = build(base["registry"], where="registry")
    if not base["dry"] and registry.champion(str(base["model_name"])) is None:
        _founded(base)


def _settings(config: Any) -> Any:
    from perennial.config import check_node
    from perennial.sweeping.settings import Sweep

    node = OmegaConf.to_container(config.sweep, resolve=True)
    assert isinstance(node, dict)
    given = {str(key): value for key, value in node.items()}
    check_node(given, where="sweep")
    return Sweep(**{key: value for key, value in given.items() if key != "_target_"})


def _refuse(base: Mapping[str, Any], settings: Any, *, launcher: str) -> None:
    if launcher.endswith("BasicLauncher"):
        raise ConfigError(
            "hydra/launcher=basic runs jobs in one process, and each trial needs its own.",
            where="hydra/launcher",
            mend="leave it out: a search is run by hydra/launcher=process",
        )
    if settings.sampler == "mix" and "replay" not in base["method"]:
        raise ConfigError(
            "sweep=mix looks for the share of new beside replayed rows, and nothing is replayed.",
            where="method",
            mend="add replay, as in method=[replay,ewc], or use sweep=optuna",
        )
    if base["dry"]:
        raise ConfigError(
            "A dry run makes no trials.",
            where="debug=dry",
            mend="try one run of it: the same command without -m and sweep",
        )
    if settings.promote and not base["promote"]:
        raise ConfigError(
            "sweep.promote=best and promote=false contradict each other.",
            where="promote",
            mend="leave one of them out",
        )


def by_hand(words: Sequence[str]) -> list[str]:
    """A command's overrides without its trigger: what a sweep chose is due.

    >>> by_hand(["seed=1", "trigger=any", "+trigger@trigger.of.a=schedule", "trigger.cooldown=2d"])
    ['seed=1', 'trigger=manual']
    """
    others = [word for word in words if not re.match(r"[+~]*trigger[.=@]", word)]
    return others if len(others) == len(words) else [*others, "trigger=manual"]


def _founded(base: Mapping[str, Any]) -> None:
    """The first version, made in a process of its own: nothing of it stays in this one."""
    from perennial.launch import found_job

    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=die_with_parent) as pool:
        pool.submit(found_job, dict(base)).result()


def _result(folder: Path, trial: Trial) -> dict[str, Any] | None:
    """The result of this very trial, which ended before its sweep could record it."""
    try:
        found: dict[str, Any] = json.loads((folder / "result.json").read_text())
        if not trial.same(read_trial(str(folder / TRIAL))):
            return None
    except (OSError, ValueError, ConfigError):
        return None
    again = found["status"] == "failed" or (found["status"] == "skipped" and not found["candidate"])
    return None if again else found


def _clear(folder: Path, trial: Trial) -> None:
    """Remove what this sweep left of a trial, and nothing else."""
    if folder.exists() and any(folder.iterdir()):
        try:
            left = read_trial(str(folder / TRIAL))
        except ConfigError:
            left = None
        if left is None or left.sweep != trial.sweep:
            raise ConfigError(
                "A trial's folder holds what this sweep did not make.",
                where=str(folder),
                mend="move it, or give another sweep.study or hydra.sweep.dir",
            )
    shutil.rmtree(folder, ignore_errors=True)


def _outcome(folder: Path, trouble: str) -> Outcome:
    """How a trial ended, by what it left."""
    path = folder / "result.json"
    if path.exists():
        return outcome_of(json.loads(path.read_text()))
    output = folder / OUTPUT
    lines = output.read_text(errors="replace").splitlines() if output.exists() else []
    told = [line.removeprefix("perennial: ") for line in lines if line.startswith("perennial: ")]
    last = told[-1:] if len(told) > 1 or (told and " on " not in told[0]) else lines[-1:]
    return Outcome(state="failed", reason=" ".join([trouble, *[f"({one})" for one in last]]))


def _line(number: int, params: Mapping[str, Value], outcome: Outcome) -> str:
    from perennial.notation import level

    settings = ", ".join(f"{name}={shown(value)}" for name, value in params.items())
    if outcome.state != "finished":
        return f"trial {number}: {settings}: {outcome.state}: {outcome.reason}"
    words = {"history": "retention", "new": "plasticity"}
    scores = [
        f"{words[name]} {level(outcome.scores[name], outcome.unit)}"
        for name in ("history", "new")
        if name in outcome.scores
    ]
    return f"trial {number}: {settings}: {', '.join(scores)}"
