"""A message to a program of the user's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from perennial.errors import ConfigError, NotificationError
from perennial.notification.base import DEFAULT, seconds, statuses

# of what a program prints
_MOST_BYTES = 16_384
VARIABLES = ("status", "model", "candidate", "champion", "report")


class Command:
    """Starts a program for each message, without a shell.

    It reads the message as JSON on standard input and finds ``PERENNIAL_STATUS``, ``_MODEL``,
    ``_CANDIDATE``, ``_CHAMPION`` and ``_REPORT`` in its environment, empty where there is none.
    What it prints is shown, and where it fails, the last line of its standard error.

    Args:
        command: Program and arguments.
        when: Statuses to tell of, of `perennial.notification.STATUSES`.
        timeout: Seconds after which it is stopped, with what it started.

    Raises:
        ConfigError: The command is not a list of text, or a status or the time is odd.
    """

    def __init__(
        self, *, command: Sequence[str], when: Sequence[str] = DEFAULT, timeout: float = 60.0
    ) -> None:
        self.when = statuses(when)
        self.timeout = seconds(timeout)
        listed = isinstance(command, Sequence) and not isinstance(command, str)
        if not listed or not command or not all(isinstance(part, str) for part in command):
            raise ConfigError(
                "notify.command is not a list of a program and its arguments.",
                where="notify.command",
                mend="write notify.command=[python,tell.py]; there is no shell in between",
            )
        self._command = list(command)

    def send(self, message: Mapping[str, Any]) -> str:
        """Run it and wait for its end; returns what it printed, errors first.

        Raises:
            NotificationError: It is missing, failed, or was stopped after its time.
        """
        told = {f"PERENNIAL_{name.upper()}": str(message[name] or "") for name in VARIABLES}
        # a file, not a pipe: what it leaves running would hold a pipe open
        with (
            tempfile.TemporaryFile() as errors,
            tempfile.TemporaryFile() as printed,
            tempfile.TemporaryFile() as given,
        ):
            given.write(json.dumps(message, allow_nan=False).encode())
            given.seek(0)
            try:
                process = subprocess.Popen(  # noqa: S603
                    self._command,
                    stdin=given,
                    stdout=printed,
                    stderr=errors,
                    env={**os.environ, **told},
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or type(error).__name__
                raise self._error(f"could not be started: {why}") from None
            self._wait(process, errors)
            return _read(errors) + _read(printed)

    def _wait(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        try:
            code = process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            raise self._error(f"was stopped after {self.timeout:g} seconds") from None
        finally:
            if process.poll() is None:  # too slow, or we were interrupted ourselves
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code:
            said = _read(errors).strip().splitlines()
            raise self._error(f"ended with {code}" + (f": {said[-1][:200]}" if said else ""))

    def _error(self, why: str) -> NotificationError:
        return NotificationError(f"{self._command[0]} {why}.", where="notify")


def _read(file: IO[bytes]) -> str:
    """The end of what was written to a file."""
    file.seek(max(file.seek(0, os.SEEK_END) - _MOST_BYTES, 0))
    return file.read().decode(errors="replace")
