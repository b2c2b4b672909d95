"""Processes that are killed at one of Perennial's own writes, syncs, renames or database calls."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from perennial import files


class Points:
    """Counts Perennial's own writes, syncs, renames and database calls; kills at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self.kill_at = kill_at
        self.count = 0

    def install(self) -> None:
        for name in ("replace", "fsync"):
            original = getattr(os, name)
            setattr(files.os, name, self._counted(original))
        original_open = open
        files.open = self._counted(original_open)  # type: ignore[attr-defined]
        event.listen(Engine, "before_cursor_execute", self._hit)
        event.listen(Engine, "commit", self._hit)

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._hit()
            return original(*args, **kwargs)

        return call

    def _hit(self, *_: Any, **__: Any) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def wait(child: int) -> int | None:
    """Exit code, or None where the process was killed."""
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
