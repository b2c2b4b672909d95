"""A version of the registry as an artifact of W&B, and W&B brought up to date with the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from perennial.models.checkpoint import BASE, WEIGHTS

if TYPE_CHECKING:
    from perennial.promotion.registry import Version

MODEL = "model"
MANIFEST = "version.yaml"


class Mirrored(TypedDict):
    """Arguments of `perennial.tracking.base.Tracker.artifact`."""

    name: str
    kind: str
    files: Mapping[str, Path]
    aliases: Sequence[str]
    metadata: Mapping[str, str]


def mirrored(version: Version, aliases: Sequence[str] = ()) -> Mirrored:
    """What W&B keeps of a version: what it takes to load it, under its number and more aliases.

    The files of a version never change, so neither does the artifact's digest: logged again, it is
    the version that W&B has.
    """
    paths = [path for path in (WEIGHTS, BASE, MANIFEST) if path in version.files]
    return {
        "name": version.name,
        "kind": MODEL,
        "files": {path: version.open(path) for path in paths},
        "aliases": [numbered(version.number), *aliases],
        "metadata": {"id": version.id, "sha256": version.files[MANIFEST]},
    }


def numbered(number: int) -> str:
    """The alias of a version's number; W&B keeps ``v2`` for its own count."""
    return f"version-{number}"
