"""Where things lie: the configuration, the home folder."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGED = Path(__file__).parent / "conf"

CONF_DIR = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"
"""The configuration: packaged inside a wheel, beside ``src`` in a checkout."""


def home() -> Path:
    """The folder for the default registry: ``PERENNIAL_HOME``, else ``./.perennial``."""
    return Path(os.environ.get("PERENNIAL_HOME") or ".perennial").absolute()
