"""``result.json``: what a scheduler and a colleague read of a cycle."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from perennial import files
from perennial.errors import StorageError

SCHEMA_FILE = Path(__file__).parent / "result.schema.json"


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of ``result.json``."""
    loaded: dict[str, Any] = json.loads(SCHEMA_FILE.read_text())
    return loaded


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write the result durably; where no disk takes it, it goes to standard error."""
    try:
        files.write_json(path, dict(result))
    except StorageError as error:
        sys.stderr.write(f"perennial: {error}\n{json.dumps(result, indent=2)}\n")
