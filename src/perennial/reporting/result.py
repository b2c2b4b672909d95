"""``result.json``: what a scheduler and a colleague read of a cycle."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from perennial import files
from perennial.errors import (
    EXIT_FAILED,
    EXIT_INCONCLUSIVE,
    EXIT_PROMOTED,
    EXIT_REJECTED,
    EXIT_SKIPPED,
    StorageError,
)

RESULT = "result.json"
PAGE = "report.html"
EXIT_CODES = {
    "promoted": EXIT_PROMOTED,
    "rejected": EXIT_REJECTED,
    "inconclusive": EXIT_INCONCLUSIVE,
    "skipped": EXIT_SKIPPED,
    "pruned": EXIT_PROMOTED,
}
SCHEMA_FILE = Path(__file__).parent / "result.schema.json"


def exit_code(status: str) -> int:
    """What a scheduler reads."""
    return EXIT_CODES.get(status, EXIT_FAILED)


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of ``result.json``."""
    loaded: dict[str, Any] = json.loads(SCHEMA_FILE.read_text())
    return loaded


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write the result durably; where no disk takes it, it goes to standard error."""
    result = json_safe(result)
    try:
        files.write_json(path, result)
    except StorageError as error:
        sys.stderr.write(f"perennial: {error}\n{json.dumps(result, indent=2)}\n")


def json_safe(value: Any) -> Any:
    """The value with None in the place of numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): json_safe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
