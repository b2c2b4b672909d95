"""From plain configuration to a built cycle, and from its result to what a person sees."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from rich.console import Console

from perennial.config import RUN_KEYS, check_node, check_patterns, check_types
from perennial.errors import EXIT_BAD_DATA, EXIT_SKIPPED, ConfigError, DataError, PerennialError
from perennial.masking import plain
from perennial.nested import leaves
from perennial.reporting.progress import Display
from perennial.sweeping.pruning import Pruned
from perennial.sweeping.trial import Trial, read_trial

if TYPE_CHECKING:
    from perennial.monitoring.triggers import Trigger
    from perennial.notification import Notifier
    from perennial.promotion.registry import Registry
    from perennial.steps.collect import Data
    from perennial.steps.learner import Constructor
    from perennial.steps.settings import Cycle

OWN = {
    "model": ("freeze", "adapter"),
    "optimizer": ("layer_decay", "groups", "replace"),
    "trigger": ("cooldown", "minimum_rows", "budget"),
}


def run_job(
    config: dict[str, Any], *, folder: Path, multirun: bool
) -> tuple[dict[str, Any], float | None]:
    """Run one cycle, print and write its result.

    Args:
        config: Resolved, as plain values.
        folder: Hydra's run folder.
        multirun: Whether this is one job of a sweep: the alias then stays where it is.

    Returns:
        The result, and the combined validation score where something was trained.
    """
    from perennial.files import digest
    from perennial.notification import Silent
    from perennial.reporting.console import print_result
    from perennial.reporting.result import RESULT, write_result
    from perennial.steps.notify import notify
    from perennial.steps.record import failure

    console = Console(stderr=False, soft_wrap=False)
    display = Display(console)
    name, dry = str(config["model_name"]), config["dry"] is True
    pinned = multirun or config.get("trial") is not None or "WANDB_SWEEP_ID" in os.environ
    told: dict[str, Any] = {}
    notifier: Notifier = Silent()
    try:
        notifier = notifier if dry or pinned else checked_notifier(config.get("notify"))
        result = _cycle(
            config,
            folder=folder,
            display=display,
            pinned=pinned,
            notifier=notifier,
            told=told,
        )
    except (PerennialError, KeyboardInterrupt, Exception) as error:
        display.close()
        result = failure(name, error, config_sha256=digest(identity(config))) | told
        if not isinstance(error, PerennialError | KeyboardInterrupt):
            _keep_traceback(result, folder, dry=dry)
        if isinstance(error, KeyboardInterrupt):
            result["error"]["what"] = "Interrupted."
            result["error"]["mend"] = "run the same command again; it goes on where it stopped"
    display.close()
    if dry and result["status"] != "failed":
        display.say(dry_run_line(result))
        return {**result, "exit_code": 0}, None
    if not dry:
        write_result(folder / RESULT, result)
    if config["exit_zero"] or pinned:
        result["exit_code"] = 0 if result["exit_code"] in (10, 20, 21) else result["exit_code"]
    print_result(result, console, first=not display.said)
    if result["status"] in ("failed", "skipped"):  # what was decided was told with its record
        notify(notifier, result, say=display.say_last)
    display.end()
    decided = result["status"] in ("promoted", "rejected", "inconclusive")
    found = result["validation"] if decided else None
    return result, found["candidate"].get("combined") if found else None


def dry_run_line(result: Mapping[str, Any]) -> str:
    """What a dry run found, and what the real run would do."""
    order = "configuration, data, checkpoint"
    if not result["metrics"]:
        reason = result["trigger"]["reason"]
        return (
            f"Dry run: {order} are in order, nothing was written; the real run would be "
            f"{result['status']}: {reason}."
        )
    first = "make the first version, then " if result["bootstrap"] else ""
    return (
        f"Dry run: {order} and one pass through the cycle are in order, nothing was written; "
        f"the real run would {first}retrain {result['champion']['id']} on "
        f"{result['data']['new']['rows']:,} new rows."
    )


def _cycle(
    config: dict[str, Any],
    *,
    folder: Path,
    display: Display,
    pinned: bool,
    notifier: Notifier,
    told: dict[str, Any],
) -> dict[str, Any]:
    """Run the story, tracked from its start to its end; ``told`` gets what a failure knows too."""
    _check(config)
    from perennial import cycle as story
    from perennial.steps.due import waiting
    from perennial.steps.record import pruned, unasked

    with ExitStack() as stack:
        cycle = _built(config, folder=folder, display=display, stack=stack, pinned=pinned)
        cycle.notifier = notifier
        told["trigger"] = unasked(cycle.trigger.kind)
        if (skipped := waiting(cycle)) is not None:  # before there is a tracked run of nothing
            return skipped
        job_type = "trial" if pinned else "retrain"
        with _tracked(cycle, config, folder=folder, job_type=job_type) as status:
            told["tracking"] = cycle.tracker.identity()
            try:
                result = story.run(cycle)
            except Pruned as stopped:
                result = pruned(cycle, stopped)
            result["tracking"] = told["tracking"]
            status.append(result["status"])
    return result


@contextmanager
def _tracked(
    cycle: Cycle, config: Mapping[str, Any], *, folder: Path, job_type: str
) -> Iterator[list[str]]:
    """A tracked run; what the list gets is how it ended, else it has failed."""
    cycle.tracker.start(
        name=f"{cycle.name}-{folder.absolute().name}",
        group=cycle.name,
        job_type=job_type,
        config={key: value for key, value in config.items() if key != "notify"},
        folder=folder,
        tags=list(config["method"]) or ["none"],
    )
    told: list[str] = []
    try:
        yield told
    finally:
        status = told[-1] if told else "failed"
        cycle.tracker.summary({"cycle/status": status})
        cycle.tracker.tag(status)
        cycle.tracker.finish(int(not told))


def checked_notifier(node: Any) -> Notifier:
    """Whom a configuration tells.

    Raises:
        ConfigError: A setting is unknown or wrong.
    """
    check_node(node, where="notify")
    notifier: Notifier = build(node, where="notify")
    return notifier


def adopt_job(config: dict[str, Any]) -> str:
    """Register a checkpoint as champion, with what a retraining of it will need; returns its id."""
    _check(config)
    from perennial.steps.found import adopt
    from perennial.steps.tell import adopted

    display = Display(Console())
    try:
        with ExitStack() as stack:
            cycle = _built(config, folder=Path(), display=display, stack=stack, pinned=False)
            with _tracked(cycle, config, folder=Path(), job_type="adopt") as status:
                version = adopt(cycle)
                adopted(cycle, version)
                status.append("adopted")
    finally:
        display.close()
    display.say(f"{version.id} is the champion; retrain it with perennial train")
    return version.id


def found_job(config: dict[str, Any]) -> str:
    """Make a lineage's first version where it has none; returns the champion's id."""
    _check(config)
    from perennial.steps.found import found

    display = Display(Console())
    try:
        with ExitStack() as stack:
            cycle = _built(config, folder=Path(), display=display, stack=stack, pinned=False)
            champion = cycle.registry.champion(cycle.name) or found(cycle)
    finally:
        display.close()
    return champion.id


def silent_cycle(config: Mapping[str, Any], *, url: str, promotion: str) -> Cycle:
    """A cycle that tells nobody, in a registry of its own.

    Args:
        config: Resolved, as plain values, without registry and tracking.
        url: Of the registry.
        promotion: ``gate``, or ``always`` where every candidate is to serve.
    """
    from dataclasses import replace

    registry = {"_target_": "perennial.promotion.registry.Registry", "url": url}
    tracking = {"_target_": "perennial.tracking.wandb.NoTracker"}
    given = {**config, "registry": registry, "tracking": tracking}
    _check(given)
    display = Display(Console(quiet=True))
    with ExitStack() as stack:
        cycle = _built(given, folder=Path(), display=display, stack=stack, pinned=False)
    return replace(cycle, promotion=promotion, report=False)


def _check(config: Mapping[str, Any]) -> None:
    from perennial.models.adapter import Adapter
    from perennial.training.optimizer import Grouped
    from perennial.training.ranks import refuse_a_launcher

    check_types(config)
    refuse_a_launcher(ranks=1)  # before a row is read; `fit` asks again for itself
    if config.get("sweep") is not None:
        raise ConfigError(
            "sweep is for many runs, and this is one.",
            where="sweep",
            mend="add -m to the command, or leave sweep out",
        )
    groups = ("model", "task", "optimizer", "trainer", "gate", "registry", "tracking")
    for group in (*groups, "data", "method"):
        if group not in config:
            raise ConfigError(
                f"Nothing is chosen for {group}.",
                where=group,
                mend="write method=none" if group == "method" else f"choose one: {group}=NAME",
            )
    _require_target(config)
    for group in groups:
        node = _given(config) if group == "model" else config[group]
        check_node(constructed(node, group), where=group)
    check_node(
        own_settings(config["optimizer"], "optimizer"), where="optimizer", constructor=Grouped
    )
    check_patterns(config["model"].get("freeze"), where="model.freeze")
    if config["model"].get("adapter") is not None:
        check_node(config["model"]["adapter"], where="model.adapter", constructor=Adapter)
    _check_data(config)
    for method, node in config["method"].items():
        check_node(node, where=f"method.{method}")
    if "trigger" in config:  # adopting has none
        _check_trigger(config["trigger"], where="trigger")


def _check_trigger(node: Any, *, where: str) -> None:
    """A trigger's settings, its limits, and those of the triggers that it combines."""
    from perennial.monitoring.triggers import Limited
    from perennial.monitoring.triggers.limits import Budget

    check_node(constructed(node, "trigger"), where=where)
    limits = own_settings(node, "trigger")
    check_node(limits, where=where, constructor=Limited)
    if limits.get("budget") is not None:
        given = {key: value for key, value in limits["budget"].items() if value is not None}
        check_node(given, where=f"{where}.budget", constructor=Budget)
    others = node.get("of", {})
    if not isinstance(others, Mapping):
        raise ConfigError(
            f"{where}.of is {others!r}; it takes names of triggers, each with its settings.",
            where=f"{where}.of",
            mend="add one: +trigger@trigger.of.weekly=schedule trigger.of.weekly.every=7d",
        )
    for name, one in others.items():
        _check_trigger(one, where=f"{where}.of.{name}")


def checked_trigger(node: Mapping[str, Any], *, where: str) -> Trigger:
    """A trigger under its limits.

    Args:
        node: Its settings.
        where: Their path, for messages.

    Raises:
        ConfigError: A setting is unknown or wrong.
    """
    _check_trigger(node, where=where)
    return _trigger(node, where=where)


def _trigger(node: Mapping[str, Any], *, where: str = "trigger") -> Trigger:
    """A trigger under its limits; those that it combines are built first, under theirs."""
    from perennial.monitoring.triggers import Limited

    inner = {key: value for key, value in constructed(node, "trigger").items() if key != "of"}
    if "of" in node:
        of = {key: _trigger(one, where=f"{where}.of.{key}") for key, one in node["of"].items()}
        trigger = build({**inner, "_partial_": True}, where=where)(of=of)
    else:
        trigger = build(inner, where=where)
    return Limited(trigger, **own_settings(node, "trigger"))


def _asked(node: Mapping[str, Any] | None, *, pinned: bool, say: Callable[[str], None]) -> Trigger:
    """What says that the cycle is due: of a trial its sweep, which asks no other trigger."""
    from perennial.monitoring.triggers import Manual

    if node is None:
        return Manual()
    trigger = _trigger(node)
    if not pinned:
        return trigger
    limits = leaves(own_settings(node, "trigger")).values()
    if trigger.kind != Manual.kind or any(value is not None for value in limits):
        say("trigger: not asked, nor are its limits; a trial is due when its sweep says so")
    return Manual()


def own_settings(node: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Settings of a group that are Perennial's own, beside those of the constructor it names."""
    return {key: value for key, value in node.items() if key in OWN.get(group, ())}


def constructed(node: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    """Settings of a group that go to the constructor it names."""
    if not isinstance(node, Mapping):
        return node
    return {key: value for key, value in node.items() if key not in OWN.get(group, ())}


def _given(config: Mapping[str, Any]) -> Any:
    """The model's settings without those that are left to what preprocessing finds."""
    node = config["model"]
    if not isinstance(node, Mapping) or config["data"].get("preprocess") is None:
        return node
    return {key: value for key, value in node.items() if value is not None}


def _require_target(config: Mapping[str, Any]) -> None:
    """A task with a target column, and no column named."""
    if config["data"].get("label") is None and "label" in config["task"]:
        raise ConfigError(
            f"{str(config['task'].get('_target_')).rpartition('.')[2]} needs targets, and "
            "data.label is null.",
            where="data.label",
            mend="name the target column",
        )


def _check_data(config: Mapping[str, Any]) -> None:
    from perennial.steps.collect import Data

    data = config["data"]
    check_node(data, where="data", constructor=Data)
    check_node(data["memory"], where="data.memory")
    if data.get("preprocess") is not None:
        check_node(data["preprocess"], where="data.preprocess")
    if data.get("augment") is not None:
        check_node(data["augment"], where="data.augment")
    if config["task"].get("label", data["label"]) != data["label"]:
        raise ConfigError(
            f"task.label is {config['task']['label']!r} and data.label {data['label']!r}.",
            where="task.label",
            mend="set data.label alone; the task follows it",
        )


def _built(
    config: dict[str, Any], *, folder: Path, display: Display, stack: ExitStack, pinned: bool
) -> Cycle:
    """The cycle that a configuration describes; a dry one works on a copy of the registry."""
    from perennial.steps.settings import Cycle
    from perennial.tracking.wandb import NoTracker
    from perennial.training.optimizer import Grouped

    dry, name = bool(config["dry"]), str(config["model_name"])
    registry = build(config["registry"], where="registry")
    if dry:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        registry = registry.scratch(Path(scratch))
    training = build(config["trainer"], where="trainer")
    display.say(f"perennial: {name} on {training.device()} ({training.resolved_precision()})")
    return Cycle(
        name=name,
        data=_data(config),
        model=_model(config["model"]),
        task=build(config["task"], where="task"),
        methods=lambda: [
            build(node, where=f"method.{key}") for key, node in config["method"].items()
        ],
        optimizer=Grouped(
            build(constructed(config["optimizer"], "optimizer"), where="optimizer"),
            **own_settings(config["optimizer"], "optimizer"),
        ),
        training=training,
        policy=build(config["gate"], where="gate"),
        registry=registry,
        tracker=NoTracker() if dry else build(config["tracking"], where="tracking"),
        config=identity(config),
        seed=int(config["seed"]),
        checkpoint=None if config["checkpoint"] is None else str(config["checkpoint"]),
        history=str(config["history"]),
        promote=bool(config["promote"]) and not pinned,
        trigger=_asked(config.get("trigger"), pinned=pinned, say=display.say),
        trial=(read_trial(config.get("trial")) or Trial()) if pinned else None,
        force=bool(config["force"]),
        dry=dry,
        folder=folder,
        say=display.say,
        say_last=display.say_last,
        progress=display.progress,
    )


def _model(node: Mapping[str, Any]) -> Constructor:
    """The model's constructor, with what Perennial does to the model it makes."""
    from perennial.models.adapter import Adapter
    from perennial.steps.learner import Constructor

    adapter = node.get("adapter")
    inner = constructed(node, "model")
    return Constructor(
        target=str(node["_target_"]),
        arguments={k: v for k, v in inner.items() if not k.startswith("_")},
        build=lambda **others: _called(inner, others),
        freeze=tuple(node.get("freeze") or ()),
        adapter=None if adapter is None else Adapter(**adapter),
    )


def _called(node: Mapping[str, Any], others: Mapping[str, Any]) -> Any:
    """A node's object with other arguments, which are values and never nodes themselves."""
    return build({**node, "_partial_": True}, where="model")(**others)


def evaluate_job(config: dict[str, Any]) -> None:
    """Score a version on every row of ``data.new`` and print a table; a tracker gets it too."""
    from perennial.steps.evaluate import evaluate
    from perennial.tracking.evaluation import evaluated

    require_lineage(config["model_name"])
    for group in ("task", "registry", "tracking"):
        check_node(config[group], where=group)
    data = _data(config)
    registry: Registry = build(config["registry"], where="registry")
    version = registry.version(str(config["ref"]))
    with evaluated(
        build(config["tracking"], where="tracking"), version, config=config, folder=Path()
    ) as told:
        told |= evaluate(
            registry=registry,
            ref=version.id,
            data=data,
            allow=[str(target) for target in config["allow"]],
            task=build(config["task"], where="task"),
            accelerator=str(config["accelerator"]),
            console=Console(),
        )


def require_lineage(name: Any) -> None:
    """Refuse a version in the place of a lineage, where ``ref`` names the version.

    Raises:
        ConfigError: ``model_name`` is one.
    """
    if "@" in str(name):
        raise ConfigError(
            f"model_name={name} names a version, not a lineage.",
            where="model_name",
            mend=f"write ref={name}",
        )


def check_job(config: dict[str, Any]) -> int:
    """Validate and describe ``data.new``; returns the exit code."""
    from perennial.reporting.check import print_check
    from perennial.reporting.result import json_safe
    from perennial.steps.check import check_data

    check_types(config)
    for group in ("task", "gate", "registry"):
        check_node(config[group], where=group)
    _check_data(config)
    task, data = build(config["task"], where="task"), _data(config)
    try:
        found = check_data(
            registry=build(config["registry"], where="registry"),
            name=str(config["model_name"]),
            data=data.for_task(task),
            policy=build(config["gate"], where="gate"),
            labels=task.labels,
            seed=int(config["seed"]),
        )
    except DataError as error:
        if config["json"] is None:
            raise
        found = {"error": {"what": error.what, "where": error.where, "mend": error.mend}}
    bad = bool(found.get("error") or found.get("decides"))
    skipped = found.get("unmet") == 0 and not config["exit_zero"]
    code = EXIT_BAD_DATA if bad else EXIT_SKIPPED if skipped else 0
    found = json_safe({"exit_code": code, "error": None, **found})
    _tell(found, config["json"], Console(), words=print_check if found["error"] is None else None)
    return int(found["exit_code"])


def decide_job(config: dict[str, Any]) -> int:
    """Decide again on a version's stored predictions; returns the exit code.

    A decision that is recorded leaves result and page in its folder, and is told.

    Args:
        config: Resolved, as plain values.
    """
    from perennial.reporting.again import print_again
    from perennial.reporting.result import json_safe
    from perennial.steps.again import decide_again, result_again
    from perennial.steps.notify import notify

    check_types(config)
    for group in ("gate", "registry"):
        check_node(config[group], where=group)
    notifier = checked_notifier(config["notify"])
    registry = build(config["registry"], where="registry")
    version = registry.version(str(config["version"]))
    again = decide_again(
        registry,
        version,
        policy=build(config["gate"], where="gate"),
        settings=plain(config["gate"]),
        promote=config["promote"],
    )
    result = json_safe(result_again(version, again))
    if again.recorded:
        result["report"] = _leave(registry, version.id, result, Path(config["folder"]))
    if config["exit_zero"]:
        result["exit_code"] = 0
    _tell(result, config["json"], Console(), words=print_again)
    if again.recorded:
        errors = Console(stderr=True, soft_wrap=True)
        notify(notifier, result, say=lambda line: errors.print(line, markup=False, highlight=False))
    return int(result["exit_code"])


def _tell(
    found: dict[str, Any],
    where: Any,
    console: Console,
    *,
    words: Callable[[Mapping[str, Any], Console], None] | None,
) -> None:
    """Print words, and write plain values where ``json`` says: ``-`` is in the place of words."""
    from perennial.files import write_json

    if where == "-":
        console.print_json(data=found)
    elif words is not None:
        words(found, console)
    if where not in (None, "-"):
        write_json(Path(str(where)), found)


def _leave(registry: Registry, ref: str, result: dict[str, Any], folder: Path) -> str | None:
    """Result and page of a recorded decision in a run folder; returns the page's path."""
    from perennial import files
    from perennial.reporting.result import PAGE, RESULT, write_result
    from perennial.steps.again import decision_files

    version = registry.version(ref)
    record = registry.decision(version.name, version.number)
    assert record is not None
    path = folder / PAGE
    try:
        files.write_bytes(path, version.open(decision_files(version, record)[PAGE]).read_bytes())
        shown: str | None = str(path)
    except PerennialError as error:  # it is recorded: what cannot be written unsays nothing
        Console(stderr=True).print(f"{ref}: {error.what}", markup=False, highlight=False)
        shown = None
    write_result(folder / RESULT, {**result, "report": shown})
    return shown


def build(node: Mapping[str, Any], *, where: str) -> Any:
    """Build what a node's ``_target_`` names.

    Raises:
        PerennialError: The constructor's own, where it raised one.
        ConfigError: The constructor failed otherwise.
    """
    try:
        return instantiate(dict(node), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, PerennialError):
            raise cause from error
        raise ConfigError(
            f"{node.get('_target_')} could not be built: {cause or error}",
            where=where,
            mend=f"check the settings under {where} in --cfg job"
            + (
                "; a function that is to be called later takes _partial_: true"
                if "missing" in str(cause)
                else ""
            ),
        ) from error


def checked_data(config: Mapping[str, Any]) -> Data:
    """The rows' settings, checked and built.

    Raises:
        ConfigError: A setting is unknown or wrong.
    """
    _check_data(config)
    return _data(config)


def _data(config: Mapping[str, Any]) -> Data:
    """The rows' settings, each under a ``_target_`` built."""
    from perennial.steps.collect import Data

    def made(key: str, value: Any) -> Any:
        nodes = isinstance(value, Mapping) and "_target_" in value
        return build(value, where=f"data.{key}") if nodes else value

    return Data(**{key: made(key, value) for key, value in config["data"].items()})


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without what changes nothing about the cycle itself."""
    return {key: value for key, value in config.items() if key not in RUN_KEYS}


def _keep_traceback(result: dict[str, Any], folder: Path, *, dry: bool) -> None:
    """An error nobody foresaw: the traceback goes into a file, the message names it."""
    text = traceback.format_exc()
    result["error"]["what"] = (
        "An error that Perennial did not foresee: " + (text.strip().splitlines()[-1])
    )
    result["error"]["mend"] = "run with debug=dry to find out more"
    if not dry:
        path = folder / "traceback.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        result["error"]["mend"] = f"the traceback is in {path}; please report it"
