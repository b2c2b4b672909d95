"""``perennial backtest``: retraining policies over a past, and which of them pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from perennial.config import check_node
from perennial.errors import ConfigError

if TYPE_CHECKING:
    from perennial.backtest.account import Prices
    from perennial.backtest.replay import Course, Replay
    from perennial.backtest.timeline import Timeline
    from perennial.monitoring.triggers import Trigger
    from perennial.steps.settings import Cycle

# settings of the verb itself, which are none of its cycles'
OWN = ("policy", "folder", "json", "backtest", "cost", "value")
Configured = Callable[[Mapping[str, Any]], dict[str, Any]]


def backtest_job(configured: Configured, *, console: Console | None = None) -> dict[str, Any]:
    """Replay a timeline under each policy; print, write and return what came of it.

    Args:
        configured: Settings by their dotted names, beside those of the command, to the resolved
            configuration as plain values.
        console: Where to print.

    Returns:
        As ``backtest.json`` keeps it.

    Raises:
        ConfigError: A setting is missing or wrong, or a policy is unknown.
        PerennialError: A cycle cannot run; the same command goes on from what ran before it.
    """
    from perennial.backtest.cadence import cadences
    from perennial.backtest.replay import Replay
    from perennial.backtest.states import States
    from perennial.backtest.timeline import Past
    from perennial.files import write_json
    from perennial.reporting.backtest import print_backtest, write_backtest
    from perennial.reporting.result import json_safe

    config = configured({})
    timeline, prices = _timeline(config), _prices(config)
    policies = cadences(config["policy"], timeline=timeline, triggers=_triggers(config))
    console = console or Console(soft_wrap=True)
    quiet = config["json"] == "-"

    def say(line: str) -> None:
        if not quiet:
            console.print(line, markup=False, highlight=False)

    folder = Path(str(config["folder"]))
    cycle_at = _Cycles(configured, timeline, folder)
    states = States(folder)
    with states.locked():
        say(f"backtest: {config['model_name']} in {folder}")
        past = Past(timeline, cycle_at, say=say)
        replay = Replay(timeline=timeline, past=past, states=states, cycle_at=cycle_at, say=say)
        courses = [replay.follow(one) for one in policies]
        told = {
            "schema_version": 1,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model_name": str(config["model_name"]),
            "folder": str(folder.absolute()),
            "founding_rows": len(past.base),
            "windows": [{"window": k, "rows": len(rows)} for k, rows in past.windows.items()],
            **_told(replay, courses, prices),
        }
        write_backtest(folder, told)
    if quiet:
        console.print_json(data=json_safe(told))
    else:
        print_backtest(told, console)
    if config["json"] not in (None, "-"):
        write_json(Path(str(config["json"])), json_safe(told))
    return told


class _Cycles:
    """Builds the cycle of a window; see `perennial.backtest.replay.CycleAt`."""

    def __init__(self, configured: Configured, timeline: Timeline, folder: Path) -> None:
        self._configured, self._timeline, self._folder = configured, timeline, folder

    def __call__(
        self, window: int, *, url: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> Cycle:
        from perennial.launch import silent_cycle

        found = self._configured({**(settings or {}), self._timeline.key: window})
        config = {key: value for key, value in found.items() if key not in OWN}
        nowhere = f"sqlite:///{self._folder.absolute() / 'states' / 'none.db'}"
        return silent_cycle(config, url=url or nowhere, promotion=self._timeline.promotion)


def _timeline(config: Mapping[str, Any]) -> Timeline:
    from perennial.backtest.timeline import Timeline

    node = {key: value for key, value in config["backtest"].items() if key != "triggers"}
    missing = [key for key in ("key", "first", "last") if node.get(key) is None]
    if missing:
        raise ConfigError(
            f"There is no timeline: backtest.{missing[0]} is null.",
            where="backtest",
            mend="choose an experiment that has one, experiment=campaigns, or name the setting "
            "that numbers the windows: backtest.key=week backtest.first=1 backtest.last=10",
        )
    check_node(node, where="backtest", constructor=Timeline)
    return Timeline(**node)


def _prices(config: Mapping[str, Any]) -> Prices:
    from perennial.backtest.account import Prices

    for group, names in (("cost", ("device_hour", "label")), ("value", ("per_point",))):
        node = config[group]
        if not isinstance(node, Mapping) or set(node) != set(names):
            raise ConfigError(
                f"{group} is {node!r}.",
                where=group,
                mend=f"set {' and '.join(f'{group}.{name}' for name in names)}",
            )
        check_node(node, where=group, constructor=Prices)
    return Prices(**config["cost"], **config["value"])


def _triggers(config: Mapping[str, Any]) -> dict[str, Callable[[], Trigger]]:
    """Name to what builds the trigger that is configured under it."""
    from perennial.launch import checked_trigger

    nodes = config["backtest"].get("triggers") or {}
    return {
        str(name): partial(checked_trigger, node, where=f"backtest.triggers.{name}")
        for name, node in nodes.items()
    }


def _told(replay: Replay, courses: Sequence[Course], prices: Prices) -> dict[str, Any]:
    from perennial.backtest.account import KEPT, accounts, recommendation

    better = replay.metric.higher_is_better
    return {
        "timeline": asdict(replay.timeline),
        "metric": replay.metric.name,
        "higher_is_better": better,
        "prices": asdict(prices),
        "kept": KEPT,
        "policies": accounts(courses, prices=prices, higher_is_better=better),
        "recommendation": recommendation(courses, prices=prices, higher_is_better=better),
    }
