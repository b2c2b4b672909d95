"""A parser of arguments whose mistakes read like any other of the project."""

from __future__ import annotations

import argparse
from typing import Any

from perennial.errors import ConfigError
from perennial.paths import home


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
