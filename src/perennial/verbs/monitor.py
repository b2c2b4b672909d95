"""``perennial monitor``: the checks alone, without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from perennial.config import check_node, check_types
from perennial.errors import EXIT_ALARM, ConfigError, PerennialError

if TYPE_CHECKING:
    from perennial.notification import Notifier
    from perennial.promotion.registry import Version
    from perennial.steps.monitor import Checks

VERSION = 1
DRIFT = ("minimum_effect", "tests", "permutations", "model", "draws")
PERFORMANCE = ("smallest_drop",)
SHARED = ("false_alarms_per_year", "every", "seed")
# of triggers, and without a meaning where nothing is trained
LIMITS = ("cooldown", "minimum_rows", "budget")


def monitor_job(config: dict[str, Any], *, console: Console | None = None) -> int:
    """Check ``data.new`` against a version; print, write and tell what was found.

    Args:
        config: Resolved, as plain values.
        console: Where to print.

    Returns:
        The exit code.

    Raises:
        ConfigError: A setting is unknown or wrong.
    """
    from perennial import files
    from perennial.launch import checked_notifier
    from perennial.reporting.monitor import PAGE, RECORD, print_look, write_record
    from perennial.reporting.monitor_page import render_look
    from perennial.reporting.result import json_safe
    from perennial.steps.notify import message_of_look, send

    _check(config)
    checks = checks_of(config["trigger"])
    notifier: Notifier = checked_notifier(config["notify"])
    console, folder = console or Console(), Path(str(config["folder"])).absolute()
    if folder.is_dir():  # one that is given is used again, by a call that follows a killed one too
        files.sweep(folder)
    try:
        told = json_safe(_looked(config, checks, folder))
    except PerennialError as error:
        told = _failed(config, error)
    if told["error"] is None:
        told["page"] = _page(folder / PAGE, render_look(told))
    write_record(folder / RECORD, told)
    if config["exit_zero"] and told["status"] == "alarm":
        told["exit_code"] = 0
    _show(told, config["json"], console, words=print_look)
    errors = Console(stderr=True, soft_wrap=True)
    send(
        notifier,
        told["status"],
        lambda: message_of_look(told),
        say=lambda line: errors.print(line, markup=False, highlight=False),
    )
    return int(told["exit_code"])


def checks_of(node: Mapping[str, Any]) -> Checks:
    """What is checked, by the settings of ``trigger=drift``, ``trigger=performance`` or both.

    Raises:
        ConfigError: It is another trigger, or a setting is unknown, wrong, or without a meaning.
    """
    from perennial.monitoring.triggers.schedule import require_span
    from perennial.steps.monitor import Checks, DriftChecks, PerformanceChecks

    known = {*DRIFT, *PERFORMANCE, *SHARED, *LIMITS}
    drift, scores = "minimum_effect" in node, "smallest_drop" in node
    unknown = [key for key in node if not key.startswith("_") and key not in known]
    if unknown or not (drift or scores):
        raise ConfigError(
            f"trigger has {unknown[0]}, which no check takes."
            if unknown
            else "The chosen trigger checks nothing.",
            where="trigger",
            mend="choose trigger=drift, trigger=performance, or both as they are by default",
        )
    given = {"budget": any((node.get("budget") or {}).values())}
    given |= {key: node.get(key) is not None for key in LIMITS[:2]}
    if limits := [key for key, value in given.items() if value]:
        raise ConfigError(
            f"trigger.{limits[0]} holds back cycles, and monitoring begins none.",
            where=f"trigger.{limits[0]}",
            mend="leave it out here; perennial train trigger=drift takes it",
        )
    parts = {DriftChecks: DRIFT if drift else (), PerformanceChecks: PERFORMANCE if scores else ()}
    made: dict[type, Any] = {}
    for kind, names in parts.items():
        values = {key: node[key] for key in names}
        check_node(values, where="trigger", constructor=kind)
        if "tests" in values:
            values["tests"] = _tests(values["tests"])
        made[kind] = kind(**values) if names else None
    return Checks(
        false_alarms_per_year=_above_zero(node, "false_alarms_per_year"),
        every=require_span(node["every"], where="trigger.every"),
        drift=made[DriftChecks],
        performance=made[PerformanceChecks],
        seed=int(node["seed"]),
    )


def _tests(value: Any) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ConfigError(
        f"trigger.tests is {value!r}.",
        where="trigger.tests",
        mend="write trigger.tests=[mmd], [mmd,classifier] or []",
    )


def _above_zero(node: Mapping[str, Any], key: str) -> float:
    value = node[key]
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return float(value)
    raise ConfigError(
        f"trigger.{key} is {value!r}; it takes a number above 0.",
        where=f"trigger.{key}",
        mend=f"write trigger.{key}=1",
    )


def _check(config: Mapping[str, Any]) -> None:
    from perennial.launch import require_lineage

    require_lineage(config["model_name"])
    check_types(config)
    for group in ("task", "registry", "tracking", "trainer"):
        check_node(config[group], where=group)
    if set(config["monitor"]) != {"labels"}:
        raise ConfigError(
            f"monitor is {config['monitor']!r}.", where="monitor", mend="write monitor.labels=PATH"
        )
    if not isinstance(config["exit_zero"], bool) or not isinstance(config["allow"], list):
        raise ConfigError(
            "exit_zero takes true or false, and allow a list of import paths.",
            where="exit_zero, allow",
            mend="write allow=[my_module.Net]",
        )


def _looked(config: Mapping[str, Any], checks: Checks, folder: Path) -> dict[str, Any]:
    from perennial import clock
    from perennial.launch import build, checked_data
    from perennial.steps.loaded import loaded
    from perennial.steps.monitor import monitor
    from perennial.tracking.monitoring import monitored

    data = checked_data(config)
    registry = build(config["registry"], where="registry")
    version: Version = registry.version(str(config["ref"]))
    tracker = build(config["tracking"], where="tracking")
    learner, data = loaded(
        version,
        data=data,
        task=build(config["task"], where="task"),
        allow=_allowed(config),
        device=build(config["trainer"], where="trainer").device(),
    )
    shown = {key: value for key, value in config.items() if key != "notify"}
    with monitored(tracker, version, config=shown, folder=folder) as told:
        told |= monitor(
            registry=registry,
            version=version,
            learner=learner,
            data=data,
            checks=checks,
            labels=config["monitor"]["labels"],
            now=clock.now(),
        )
        status = "alarm" if told["alarm"] else "calm"
        told |= {"status": status, "exit_code": EXIT_ALARM if told["alarm"] else 0}
        told |= {"tracking": tracker.identity()}
    return {"schema_version": VERSION, **told, "page": None, "error": None}


def _allowed(config: Mapping[str, Any]) -> list[str]:
    """Classes that may be built: those that the configuration names itself."""
    own = config["model"].get("_target_") if isinstance(config["model"], Mapping) else None
    return [*map(str, config["allow"]), *([str(own)] if own else [])]


def _failed(config: Mapping[str, Any], error: PerennialError) -> dict[str, Any]:
    """What ``monitor.json`` keeps of a look that could not be taken."""
    from perennial import clock

    name = str(config["model_name"])
    nothing = dict.fromkeys(
        ("alarm", "reason", "task", "window", "checks", "drift", "performance", "untold", "page")
    )
    return {
        "schema_version": VERSION,
        "model_name": name,
        "version": str(config["ref"]),
        "created": clock.now().isoformat(timespec="seconds"),
        **nothing,
        "windows": [],
        "notes": [],
        "status": "failed",
        "exit_code": error.exit_code,
        "tracking": {"run_id": None, "url": None, "directory": None},
        "error": {"what": error.what, "where": error.where, "mend": error.mend},
    }


def _page(path: Path, html: str) -> str | None:
    from perennial import files
    from perennial.errors import StorageError

    try:
        files.write_bytes(path, html.encode())
    except StorageError:  # the record, which is written next, says so
        return None
    return str(path)


def _show(told: dict[str, Any], where: Any, console: Console, *, words: Any) -> None:
    """Print words, and write plain values where ``json`` says: ``-`` is in the place of words."""
    from perennial.files import write_json

    if where == "-":
        console.print_json(data=told)
    else:
        words(told, console)
    if where not in (None, "-"):
        write_json(Path(str(where)), told)
