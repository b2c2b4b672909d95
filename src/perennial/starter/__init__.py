"""``perennial init``: a small project of the user's own that runs at once."""

from __future__ import annotations

from pathlib import Path

from perennial.errors import ConfigError
from perennial.files import write_bytes

PROJECT = Path(__file__).parent / "project"
"""The project as it is written, file by file."""

NEXT = """{folder}: a project that runs as it is; next

{cd}  python make_data.py
  python check_data.py data/week_1.csv
  perennial train --config-dir conf experiment=churn

README.md there says what is what, and how your own data and model take its place."""


def write_project(folder: Path) -> list[Path]:
    """Write the example project into a folder, which may exist.

    Args:
        folder: Made where it does not exist; files of other names in it stay.

    Returns:
        The files that were written.

    Raises:
        ConfigError: One of the files is there already, or the folder is a file; nothing was
            written.
        StorageError: The disk is full, read-only or gone.
    """
    sources = sorted(
        path
        for path in PROJECT.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "__init__.py"
    )
    targets = [folder / path.relative_to(PROJECT) for path in sources]
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"{folder} is a file.", where="perennial init", mend="name a folder, or a new one"
        )
    if there := [str(path) for path in targets if path.exists()]:
        raise ConfigError(
            f"{', '.join(there)}: there already.",
            where="perennial init",
            mend="name another folder; nothing is ever written over",
        )
    for source, target in zip(sources, targets, strict=True):
        write_bytes(target, source.read_bytes())
    return targets


def next_steps(folder: Path) -> str:
    """What to type after `write_project`."""
    cd = "" if folder.absolute() == Path.cwd() else f"  cd {folder}\n"
    return NEXT.format(folder=folder, cd=cd)
