"""``perennial init [FOLDER]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perennial.errors import ConfigError
from perennial.usage import asks_for_help


def init_verb(arguments: Sequence[str]) -> None:
    """Write an example project, by default into this folder.

    Raises:
        ConfigError: What was asked for is not one folder.
    """
    from perennial.starter import next_steps, write_project

    if asks_for_help(arguments):
        print("perennial init [FOLDER]: a small project of your own that runs at once")  # noqa: T201
        return
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        raise ConfigError(
            f"init takes one folder, not {' '.join(arguments)!r}.",
            where="command line",
            mend="write perennial init FOLDER",
        )
    folder = Path(*arguments)
    write_project(folder)
    print(next_steps(folder))  # noqa: T201
