"""``hydra/launcher=process``: each job is a run in its own process, on its own device.

Hydra's basic launcher runs jobs one after another in one process. Under distributed training every
rank executes the command line again, a sweep and all; a job that is a run of its own cannot.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from hydra_plugins.perennial_sweeper._reading import quoted
from perennial.processes import die_with_parent, stop
from perennial.sweeping.trial import TRIAL, Trial

OUTPUT = "output.txt"
# of Hydra, what a job on its own must not be told
_NOT_A_JOBS = ("hydra.sweep", "hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper")
_ALSO_NOT = ("hydra.mode", "hydra.run.dir")


ConfigStore.instance().store(
    group="hydra/launcher",
    name="process",
    node={
        "_target_": "hydra_plugins.perennial_sweeper.process.ProcessLauncher",
        "jobs": "${oc.select:sweep.jobs,1}",
    },
    provider="perennial",
)


class ProcessLauncher(Launcher):
    """Runs jobs as processes of their own, so many at a time.

    Args:
        jobs: At a time. Where there are several CUDA devices each job sees one of them.
    """

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what jobs are composed from."""
        self.hydra_context, self.config = hydra_context, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all jobs to their ends; what each did lies in its run folder."""
        setup_globals()
        prepared = [
            self._prepared(list(overrides), initial_job_idx + place)
            for place, overrides in enumerate(job_overrides)
        ]
        run_all([partial(start, line, folder) for _, line, folder in prepared], jobs=self.jobs)
        return [job for job, _, _ in prepared]

    def _prepared(self, overrides: list[str], number: int) -> tuple[JobReturn, list[str], Path]:
        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        composed = loader.load_sweep_config(self.config, overrides)
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = number
        sweep = composed.hydra.sweep
        folder = Path(str(sweep.dir), str(OmegaConf.select(composed, "hydra.sweep.subdir")))
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        words = [one for one in overrides if not one.startswith(_NOT_A_JOBS)]
        if not any(one.startswith("trial=") for one in words):
            Trial().write(folder / TRIAL)
            words.append(f"trial={quoted(folder / TRIAL)}")
        composed.hydra.runtime.output_dir = str(folder)
        told = JobReturn(overrides=overrides, hydra_cfg=OmegaConf.masked_copy(composed, ["hydra"]))
        told.status, told.return_value = JobStatus.COMPLETED, None
        return told, arguments(self.config, words, folder), folder


def arguments(config: DictConfig, overrides: Sequence[str], folder: Path) -> list[str]:
    """The command line of a run with these overrides in a folder.

    Args:
        config: Of the sweep; its own folders of groups and settings of Hydra go along.
        overrides: Of the job.
        folder: Its run folder.
    """
    script = Path(sys.argv[0])
    is_script = script.suffix == ".py" and sys.modules["__main__"].__spec__ is None
    entry = [str(script.absolute())] if is_script else ["-m", "perennial.cli"]
    sources = config.hydra.runtime.config_sources
    folders = [f"--config-dir={one.path}" for one in sources if one.provider == "command-line"]
    inherited = [
        str(one)
        for one in config.hydra.overrides.hydra
        if not str(one).lstrip("+~").startswith((*_NOT_A_JOBS, *_ALSO_NOT))
    ]
    return [
        sys.executable,
        *entry,
        *folders,
        *inherited,
        *overrides,
        f"hydra.run.dir={quoted(folder)}",
    ]


def start(command: Sequence[str], folder: Path, device: str | None) -> subprocess.Popen[bytes]:
    """Start a job that dies with this process; what it prints goes into its folder."""
    environment = {**os.environ, **({} if device is None else {"CUDA_VISIBLE_DEVICES": device})}
    with (folder / OUTPUT).open("wb") as output:
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=die_with_parent,
        )


def run_all(
    starts: Sequence[Callable[[str | None], subprocess.Popen[bytes]]], *, jobs: int
) -> None:
    """Run processes, so many at a time, each on the device that has the fewest of them."""
    known = devices()
    waiting, running = list(starts), dict[subprocess.Popen[bytes], str | None]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                taken = list(running.values())
                device = min(known, key=taken.count) if len(known) > 1 else None
                running[waiting.pop(0)(device)] = device
            for one in [one for one in running if one.poll() is not None]:
                del running[one]
            time.sleep(0.02)
    finally:
        stop(list(running))


def devices() -> list[str]:
    """CUDA devices that a job may be given, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one.strip() for one in given.split(",") if one.strip()]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)  # noqa: S603
    count = sum(line.startswith("GPU ") for line in asked.stdout.splitlines())
    return [str(number) for number in range(count)]
