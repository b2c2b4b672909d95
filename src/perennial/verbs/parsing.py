"""A parser of arguments whose mistakes read like any other of the project."""

from __future__ import annotations

import argparse
from typing import Any

from perennial.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would print its usage and exit."""

    def error(self, message: str) -> Any:
        """Refuse the arguments."""
        raise ConfigError(message, where="command line", mend=f"see {self.prog} --help")
