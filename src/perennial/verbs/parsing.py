"""A parser of arguments whose mistakes read like any other of the project."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from perennial.errors import ConfigError
from perennial.paths import home

# of Hydra's, those whose value is the next word
_WITH_VALUE = {
    *("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"),
    *("--cfg", "-c", "--package", "-p", "--info", "-i", "--experimental-rerun"),
}


def flags_first(arguments: Iterable[str]) -> list[str]:
    """Arguments with Hydra's flags before all settings, which it does not take in two places.

    Examples:
        >>> flags_first(["data=files", "--config-dir", "own", "hydra.run.dir=."])
        ['--config-dir', 'own', 'data=files', 'hydra.run.dir=.']
    """
    flags: list[str] = []
    settings: list[str] = []
    for one in arguments:
        is_value = bool(flags) and flags[-1] in _WITH_VALUE
        (flags if one.startswith("-") or is_value else settings).append(one)
    return [*flags, *settings]


class Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would print its usage and exit."""

    def add_registry(self) -> None:
        """Take ``--url`` and ``--files``: where the registry is, by default as runs have it."""
        default = f"sqlite:///{home() / 'registry.db'}"
        self.add_argument("--url", default=default, help="the registry.url of the runs")
        self.add_argument("--files", default=None, help="the registry.files of the runs")

    def error(self, message: str) -> Any:
        """Refuse the arguments."""
        raise ConfigError(message, where="command line", mend=f"see {self.prog} --help")
