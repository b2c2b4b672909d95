"""What a check says of a source; run as a program, of each hub id that it is given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from perennial.data.memory import Memory
from perennial.data.preprocess import Text
from perennial.errors import DataError
from perennial.promotion.policy import Policy
from perennial.promotion.registry import Registry
from perennial.steps.check import check_data
from perennial.steps.collect import Data


def refusal(spec: Any, registry: Path, *, text: bool = False) -> dict[str, Any] | None:
    """What is wrong, where, and the mend; None where all is well.

    The reading and the tests are those of a cycle.
    """
    try:
        told: dict[str, Any] | None = check_data(
            registry=Registry(url=f"sqlite:///{registry / 'registry.db'}"),
            name="any",
            data=Data(new=spec, memory=Memory(), preprocess=Text() if text else None),
            policy=Policy(),
            labels=None,
            seed=0,
        )["decides"]
    except DataError as error:
        told = {"what": error.what, "where": error.where, "mend": error.mend}
    return told


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    sys.stdout.write(json.dumps({spec: refusal(spec, folder) for spec in sys.argv[2:]}))
