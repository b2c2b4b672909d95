"""Processes that a process starts: ended as a scheduler would, and never left behind."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

GRACE_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


def stop(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes as a scheduler would, and after half a minute by force."""
    for one in running:
        one.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for one in running:
        try:
            one.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()


def die_with_parent() -> None:
    """Have Linux kill this process when the one that started it is gone, however it went.

    To be called between fork and exec.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


# loaded here: nothing may be imported between fork and exec
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
