"""Where things lie: the configuration, the home folder."""

from __future__ import annotations

import os
from pathlib import Path

from perennial.errors import ConfigError

_PACKAGED = Path(__file__).parent / "conf"

CONF_DIR = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"
"""The configuration: packaged inside a wheel, beside ``src`` in a checkout."""


def home() -> Path:
    """The folder for the default registry: ``PERENNIAL_HOME``, else ``./.perennial``.

    Raises:
        ConfigError: The path holds a character that a database's URL gives another meaning.
    """
    given = os.environ.get("PERENNIAL_HOME") or ".perennial"
    if odd := [character for character in "?#%" if character in given]:
        raise ConfigError(
            f"PERENNIAL_HOME is {given!r}, and {odd[0]!r} means something else in a URL.",
            where="PERENNIAL_HOME",
            mend="name a folder without ?, # and %",
        )
    return Path(given).expanduser().absolute()
