"""Where things lie: the configuration, the home folder, and how a place is told."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from perennial.errors import ConfigError

PACKAGE = "package:"
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


def from_here(path: Path) -> str:
    """A path below the present folder as seen from it; another one whole."""
    here, whole = Path.cwd(), path.absolute()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


def folder_of(path: str, *, where: str) -> str:
    """A path as it is, with ``package:NAME/FOLDER`` replaced by the folder it means.

    Args:
        path: Of a folder or file, or of a folder inside an installed package.
        where: The setting, for messages.

    Raises:
        ConfigError: There is no such package or folder.
    """
    if not path.startswith(PACKAGE):
        return path
    name, _, inside = path.removeprefix(PACKAGE).partition("/")
    found = importlib.util.find_spec(name) if name.isidentifier() else None  # imports nothing
    places = [] if found is None else list(found.submodule_search_locations or [])
    folders = [Path(place) / inside for place in places if (Path(place) / inside).is_dir()]
    if not folders or ".." in Path(inside).parts:
        raise ConfigError(
            f"There is no folder {inside!r} in a package {name!r}.",
            where=where,
            mend="install the package, or give the path of a folder",
        )
    return str(folders[0])
