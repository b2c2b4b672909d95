"""What a person sees while a cycle runs: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from perennial.types import Show

SECONDS_BETWEEN_LINES = 15.0


class Display:
    """Lines and progress.

    Args:
        console: Where to write; whether it is a terminal decides between bar and lines.
        clock: Seconds, for tests.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self.said = False
        self._bar: Progress | None = None
        self._last: list[str] = []

    def say_last(self, line: str) -> None:
        """Show a line below what the run came to, with `end`."""
        self._last.append(line)

    def end(self) -> None:
        """Show the lines that were kept for the end."""
        while self._last:
            self.say(self._last.pop(0))

    def say(self, line: str) -> None:
        """Show one line."""
        self.said = True
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def progress(self, phase: str) -> Show:
        """What shows the progress of one phase."""
        return self._on_terminal(phase) if self.console.is_terminal else self._in_log(phase)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _on_terminal(self, phase: str) -> Show:
        state: dict[str, Any] = {}

        def show(step: int, steps: int, scores: str, *, stopped: bool = False) -> None:
            if "task" not in state:
                self.close()
                self._bar = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeRemainingColumn(),
                    TextColumn("{task.fields[scores]}"),
                    console=self.console,
                )
                self._bar.start()
                state["task"] = self._bar.add_task(phase, total=steps, scores="")
            if self._bar is not None:
                self._bar.update(state["task"], completed=step, scores=scores)
                if step >= steps:
                    self._bar.refresh()
            if stopped:
                self.close()
                self.say(_line(phase, step, steps, scores, stopped=True))

        return show

    def _in_log(self, phase: str) -> Show:
        state = {"last": self.clock(), "ended": False}

        def show(step: int, steps: int, scores: str, *, stopped: bool = False) -> None:
            now = self.clock()
            ended = stopped or step >= steps
            if not state["ended"] and (ended or now - state["last"] >= SECONDS_BETWEEN_LINES):
                state["last"], state["ended"] = now, ended
                self.say(_line(phase, step, steps, scores, stopped=stopped))

        return show


def _line(phase: str, step: int, steps: int, scores: str, *, stopped: bool) -> str:
    where = f"{'stopped early at ' if stopped else ''}step {step} of {steps}"
    return f"{phase}: {where}" + (f", {scores}" if scores else "")
