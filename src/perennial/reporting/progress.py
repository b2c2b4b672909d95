"""What a person sees while a cycle runs: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
        self._bar: Progress | None = None

    def say(self, line: str) -> None:
        """Show one line."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def progress(self, phase: str) -> Callable[[int, int, str], None]:
        """A function of step, steps and the last scores in words."""
        return self._on_terminal(phase) if self.console.is_terminal else self._in_log(phase)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _on_terminal(self, phase: str) -> Callable[[int, int, str], None]:
        state: dict[str, Any] = {}

        def show(step: int, steps: int, scores: str) -> None:
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

        return show

    def _in_log(self, phase: str) -> Callable[[int, int, str], None]:
        state = {"last": self.clock(), "ended": False}

        def show(step: int, steps: int, scores: str) -> None:
            ended = step >= steps and bool(scores)
            now = self.clock()
            if (ended and not state["ended"]) or now - state["last"] >= SECONDS_BETWEEN_LINES:
                state["last"], state["ended"] = now, ended
                self.say(f"{phase}: step {step} of {steps}" + (f", {scores}" if scores else ""))

        return show
