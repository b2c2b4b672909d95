"""``hydra/sweeper=perennial``: every combination under ``-m``, a search under ``-m sweep=...``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.perennial_sweeper._discreet import discreet, unread
from hydra_plugins.perennial_sweeper._reading import for_trials

# no settings of its own: they are those of sweep
ConfigStore.instance().store(
    group="hydra/sweeper",
    name="perennial",
    node={"_target_": "hydra_plugins.perennial_sweeper.sweeper.PerennialSweeper"},
    provider="perennial",
)


class PerennialSweeper(Sweeper):
    """Hands the command over to Hydra's basic sweeper, or to a search."""

    def __init__(self) -> None:
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.task_function: TaskFunction | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what jobs are composed from."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs; a failure of all of them is the command's."""
        assert self.config is not None
        if OmegaConf.select(self.config, "sweep") is None:
            return self._every_combination(arguments)
        from hydra_plugins.perennial_sweeper._search import Search

        return Search(self, self._parsed(arguments)).run()

    def launch(self, jobs: Sequence[Sequence[str]], *, first: int) -> None:
        """Run composed jobs by the chosen launcher."""
        assert self.launcher is not None
        assert self.config is not None
        with unread(self.config):
            self.launcher.launch(jobs, initial_job_idx=first)

    def start_launcher(self) -> None:
        """Make the launcher, once it is known where jobs run."""
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        self._hide_from(self.launcher)

    def _hide_from(self, launcher: Launcher) -> None:
        assert self.config is not None
        launcher.setup(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=discreet(self.config),
        )

    def _parsed(self, arguments: list[str]) -> list[Any]:
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        found: list[Any] = parser.parse_overrides(arguments)
        return found

    def _every_combination(self, arguments: list[str]) -> Any:
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        from hydra_plugins.perennial_sweeper._plain import tell

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        if not str(self.config.hydra.launcher._target_).endswith("BasicLauncher"):
            from hydra_plugins.perennial_sweeper._search import require_champion

            require_champion(self, self._parsed(arguments))
        basic = BasicSweeper(max_batch_size=None)
        basic.setup(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        self._hide_from(basic.launcher)
        with unread(self.config):
            returned = basic.sweep(for_trials(arguments))
        tell([job for batch in returned for job in batch])
        return returned
