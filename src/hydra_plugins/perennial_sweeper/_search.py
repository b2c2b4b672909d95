"""A search: composed from the command line, run by the launcher, told at its end."""

from __future__ import annotations

import json
import multiprocessing
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from hydra_plugins.perennial_sweeper._plain import command
from hydra_plugins.perennial_sweeper._reading import first, quoted, read
from hydra_plugins.perennial_sweeper.process import OUTPUT, arguments, die_with_parent
from perennial.errors import ConfigError, PerennialError, RegistryError, first_line
from perennial.sweeping.pruning import Limits
from perennial.sweeping.space import Value, check_space, describe, overrides, shown
from perennial.sweeping.study import Ended, Job, Study, check_storage, sqlite
from perennial.sweeping.summary import summary
from perennial.sweeping.trial import TRIAL, Outcome, Trial, outcome_of

if TYPE_CHECKING:
    from hydra_plugins.perennial_sweeper.sweeper import PerennialSweeper
    from perennial.promotion.registry import Registry

SHARED = ("model_name", "registry", "checkpoint", "promote", "force", "debug", "tracking", "notify")


class Search:
    """One sweep, from its command to its page.

    Args:
        sweeper: Composes and launches.
        given: The command's overrides, parsed.
    """

    def __init__(self, sweeper: PerennialSweeper, given: Sequence[Any]) -> None:
        from perennial.launch import build

        self.sweeper = sweeper
        self.fixed, self.space = read(given)
        self.console = Console(soft_wrap=True)
        settings = _settings(sweeper.config)
        self.settings = settings
        check_space(self.space, sampler=settings.sampler, promises=SHARED)
        composed(self.sweeper, [*self.fixed, *overrides(first(self.space))])
        self.base = composed(self.sweeper, self.fixed)
        _refuse(self.base, settings)
        if settings.storage is not None:
            check_storage(settings.storage)
        self.registry: Registry = build(self.base["registry"], where="registry")

    def run(self) -> None:
        """Go on until all trials have ended, tell what came of them, and promote where asked.

        Raises:
            PerennialError: Something is wrong with the sweep itself, not with a trial.
            SystemExit: Every trial failed, or the gate's exit code where the best one is promoted.
        """
        champion = self._champion() or _founded(self.base)
        identity = self._identity(champion)
        name = self.settings.study or self._name(identity)
        config = self.sweeper.config
        assert config is not None
        folder = Path(str(config.hydra.sweep.dir), name).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / "lock", timeout=0):
                code = self._locked(name, identity, champion, folder)
        except Timeout:
            raise RegistryError(
                "Another process is at this very sweep.",
                where=str(folder),
                mend="wait until it has ended, or stop it",
            ) from None
        if code:
            raise SystemExit(code)

    def _locked(self, name: str, identity: Mapping[str, Any], champion: str, folder: Path) -> int:
        study = Study(
            name=name,
            storage=self.settings.storage or sqlite(folder),
            space=self.space,
            settings=self.settings,
            identity=identity,
        )
        self._begin(study, champion, folder)
        promised = Trial(
            champion=champion, choose=self.settings.choose, budget=self.settings.budget
        )

        def run(jobs: Sequence[Job], limits: Limits) -> list[Outcome]:
            told = Trial(**{**promised.__dict__, "limits": limits})
            outcomes = self._group(jobs, told, folder)
            for (number, params), outcome in zip(jobs, outcomes, strict=True):
                self._say(_line(number, params, outcome))
            return outcomes

        ended = study.run(run, before=lambda: promised.require(self._champion()))
        return self._end(name, ended, champion, folder)

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
            if _result(here) is None:
                shutil.rmtree(here, ignore_errors=True)
                told.write(here / TRIAL)
                words = [*self.fixed, *overrides(params), f"trial={quoted(here / TRIAL)}"]
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
        words = [*self.fixed, *overrides(chosen.params)]
        self._say(f"\nTrial {chosen.number} goes through the gate.")
        line = arguments(self.sweeper.config, words, folder / "promotion")
        return subprocess.run(line, check=False, preexec_fn=die_with_parent).returncode  # noqa: S603

    def _champion(self) -> str | None:
        found = self.registry.champion(str(self.base["model_name"]))
        return None if found is None else found.id

    def _identity(self, champion: str) -> dict[str, Any]:
        from perennial.files import digest
        from perennial.launch import identity
        from perennial.masking import plain

        return {
            "search space": describe(self.space),
            "champion": champion,
            "configuration": digest([identity(self.base), plain(self.base["registry"])]),
            "settings": self.settings.identity(),
        }

    def _name(self, identity: Mapping[str, Any]) -> str:
        from perennial.files import digest

        return f"{self.base['model_name']}-{digest(identity)[:8]}"

    def _command(self, params: Mapping[str, Value]) -> str:
        from perennial.masking import mask_text

        return mask_text(f"{command()} {shlex.join([*self.fixed, *overrides(params)])}".strip())

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


def _refuse(base: Mapping[str, Any], settings: Any) -> None:
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


def _founded(base: Mapping[str, Any]) -> str:
    """The first version, made in a process of its own: nothing of it stays in this one."""
    from perennial.launch import found_job

    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=die_with_parent) as pool:
        return pool.submit(found_job, dict(base)).result()


def _result(folder: Path) -> dict[str, Any] | None:
    """The result of a trial that came to an end before its sweep could record it."""
    try:
        found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        return None
    return None if found["status"] == "failed" else found


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
