"""``perennial watch [--every 60] [SETTINGS]``: follow a source, one cycle at a time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from perennial import clock
from perennial.data.arrivals import listing
from perennial.errors import EXIT_FAILED, EXIT_SKIPPED, ConfigError, PerennialError
from perennial.monitoring.watching import ANSWERED, Pace, Watched, look, outcome
from perennial.paths import from_here
from perennial.processes import die_with_parent, stop
from perennial.promotion.registry import Registry
from perennial.reporting.console import print_result
from perennial.reporting.result import RESULT
from perennial.verbs.parsing import Parser, flags_first

OUTPUT = "output.txt"
# a cycle that takes longer is told of while it runs
_QUIET_SECONDS = 30.0


@dataclass(frozen=True)
class Asked:
    """What a cycle came to.

    Attributes:
        code: Its exit code, below 0 where it was killed.
        folder: Its run folder.
        result: As ``result.json`` keeps it, None where it left none.
    """

    code: int
    folder: Path
    result: Mapping[str, Any] | None


def parser() -> Parser:
    """Of the verb's own flags."""
    found = Parser(
        prog="perennial watch",
        usage="perennial watch [--every SPAN] [--longest-pause SPAN] [SETTINGS]",
        description="Follow data.new and run a cycle whenever enough has arrived, one at a time. "
        "What cycles do is set as for perennial train; see perennial train --help.",
        epilog="Stops on Ctrl-C and SIGTERM; killed, it goes on when started again.",
    )
    found.add_argument("--every", default="60s", metavar="SPAN", help="between two looks (60s)")
    found.add_argument(
        "--longest-pause",
        default="1h",
        metavar="SPAN",
        help="after failures, each of which doubles the pause (1h)",
    )
    return found


def parse(arguments: Sequence[str]) -> tuple[Pace, list[str]]:
    """How often to look, and the settings of the cycles.

    Raises:
        ConfigError: A pace that makes no sense, or several values at once.
    """
    chosen, settings = parser().parse_known_args(arguments)
    if several := {"-m", "--multirun"} & set(settings):
        raise ConfigError(
            "perennial watch runs one cycle at a time.",
            where=several.pop(),
            mend="leave it out; sweeps are for perennial train",
        )
    every, longest = (
        _seconds(chosen.every, "--every"),
        _seconds(chosen.longest_pause, "--longest-pause"),
    )
    return Pace(every=every, longest=longest), settings


def follow(
    *,
    registry: Registry,
    name: str,
    source: Any,
    pace: Pace,
    settings: Sequence[str],
    console: Console,
) -> None:
    """Look at a source for ever, and run a cycle where something has arrived.

    Args:
        registry: Where the lineage lives.
        name: The lineage.
        source: As in ``data.new``.
        pace: How often to look.
        settings: Of the cycles, as on a command line.
        console: Where to tell what happens.

    Raises:
        RegistryError: Another process watches this lineage.
        PerennialError: The very first cycle failed: whoever started this is still there to mend it.
    """

    def say(line: str) -> None:
        stamp = clock.now().strftime("%Y-%m-%d %H:%M:%S")
        console.print(f"{stamp} UTC  {name}: {line}", highlight=False, markup=False, soft_wrap=True)

    with registry.watching(name):
        say(f"looks every {pace.every:g} s; stop it with Ctrl-C or SIGTERM")
        try:
            _loop(lambda: listing(source), pace=pace, settings=settings, say=say, console=console)
        except KeyboardInterrupt:
            say("stopped; started again it goes on")


def triggered(settings: Sequence[str], *, chosen: str) -> list[str]:
    """The settings, with the trigger that is asked where they name none.

    Args:
        settings: Of the cycles, as on a command line.
        chosen: The trigger that they come to, an experiment's or the default.

    Examples:
        >>> triggered(["data=files"], chosen="manual")
        ['data=files', 'trigger=continuous']
        >>> triggered(["experiment=nightly"], chosen="schedule")
        ['experiment=nightly']
    """
    named = any(one.startswith("trigger=") for one in settings)
    return [*settings, *([] if named or chosen != "manual" else ["trigger=continuous"])]


def _seconds(text: str, flag: str) -> float:
    found = clock.span(text)
    if found is None:
        raise ConfigError(
            f"{text!r} is no span of time.", where=flag, mend=f"write it as 30s, {clock.SPANS}"
        )
    return found.total_seconds()


def _loop(
    listed: Callable[[], str | None],
    *,
    pace: Pace,
    settings: Sequence[str],
    say: Callable[[str], None],
    console: Console,
) -> None:
    state, told, first = Watched(), "", True
    while True:
        found = listed()
        state, due = look(state, found, now=_now())
        if due:
            asked = _ask(settings, say)
            again = _again(asked.result)
            state = outcome(
                state, asked.code, asked=found, now=clock.now().timestamp(), again=again, pace=pace
            )
            line = _told(asked, console, pace=pace, failures=state.failures)
            if first and asked.code == EXIT_FAILED:
                raise PerennialError(
                    "The first cycle failed, and would fail again.",
                    where=from_here(asked.folder / OUTPUT),
                    mend="mend what it says, then start the watch again",
                )
            if line != told:  # a reason to do nothing is said once
                say(line)
            told = line if asked.code == EXIT_SKIPPED else ""
            first = False
        time.sleep(pace.every)


def _ask(settings: Sequence[str], say: Callable[[str], None]) -> Asked:
    """Run ``perennial train`` to its end, in a process that does not outlive this one."""
    stamp = clock.now().strftime("%Y-%m-%d/%H-%M-%S-%f")
    folder = Path("outputs", stamp).absolute()
    folder.mkdir(parents=True)
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    own = f"hydra.run.dir='{quoted}'"
    with (folder / OUTPUT).open("wb") as output:
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "perennial.cli", *flags_first([*settings, own])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to this process alone, which ends the child
            preexec_fn=die_with_parent,
        )
    try:
        try:
            code = child.wait(_QUIET_SECONDS)
        except subprocess.TimeoutExpired:  # longer than it takes to find that nothing is due
            say(f"a cycle runs; what it prints is in {from_here(folder / OUTPUT)}")
            code = child.wait()
    except KeyboardInterrupt:
        say("stopping the cycle that runs; it goes on when this is started again")
        stop([child])
        raise
    result = folder / RESULT
    told = json.loads(result.read_text()) if result.exists() else None
    if code == EXIT_SKIPPED:
        shutil.rmtree(folder)  # nothing was done, and most looks end so
    return Asked(code, folder, told)


def _now() -> float:
    return clock.now().timestamp()


def _again(result: Mapping[str, Any] | None) -> float | None:
    """When a trigger that was not due will be, as it said."""
    at = None if result is None else result["trigger"]["evidence"].get("earliest")
    return None if at is None else datetime.fromisoformat(at).timestamp()


def _told(asked: Asked, console: Console, *, pace: Pace, failures: int) -> str:
    """What a cycle came to, in a line; what it decided and why it failed are printed whole."""
    if asked.code == EXIT_SKIPPED and asked.result is not None:
        return str(asked.result["trigger"]["reason"])
    if asked.result is not None:
        print_result(asked.result, console)
    else:
        console.print((asked.folder / OUTPUT).read_text(errors="replace").rstrip(), markup=False)
    if asked.code in ANSWERED:
        return f"looks again every {pace.every:g} s"
    pause = min(pace.longest, pace.every * 2.0 ** min(failures - 1, 30))
    return f"the cycle failed (exit {asked.code}); the next try is in {pause:g} s"
