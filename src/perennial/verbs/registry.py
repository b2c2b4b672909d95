"""``perennial registry list|show|path|rollback|sync``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from perennial.errors import RegistryError
from perennial.notation import level
from perennial.reporting.console import print_table
from perennial.reporting.verdict import value
from perennial.verbs.parsing import Parser


def registry_verb(arguments: Sequence[str]) -> None:
    """Run one verb on the registry.

    Raises:
        RegistryError: What was asked for is not there.
    """
    parser = Parser(prog="perennial registry", description="Look at versions, or roll back.")
    parser.add_registry()
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="lineages and their versions").add_argument("name", nargs="?")
    verbs.add_parser("show", help="one version").add_argument("ref", metavar="REF")
    verbs.add_parser("path", help="a folder with a version's files").add_argument(
        "ref", metavar="REF"
    )
    back = verbs.add_parser("rollback", help="the previous champion serves again")
    back.add_argument("name")
    back.add_argument("--to", type=int, default=None, metavar="NUMBER")
    mirror = verbs.add_parser("sync", help="bring versions and aliases in W&B up to date")
    mirror.add_argument("name", nargs="?")
    mirror.add_argument("--project", default="perennial", help="the tracking.project of the runs")
    mirror.add_argument("--entity", default=None, help="the tracking.entity of the runs")
    chosen = parser.parse_args(arguments)

    from perennial.promotion.registry import Registry

    registry = Registry(url=chosen.url, files=chosen.files)
    console = Console(soft_wrap=True)
    if chosen.verb == "list":
        _list(registry, chosen.name, console)
    elif chosen.verb == "show":
        _show(registry, chosen.ref, console)
    elif chosen.verb == "path":
        _path(registry, chosen.ref, console)
    elif chosen.verb == "sync":
        _sync(registry, chosen.name, chosen.project, chosen.entity, console)
    else:
        version = registry.rollback(chosen.name, to=chosen.to)
        console.print(f"{chosen.name}: {version.id} is the champion again", highlight=False)


def _path(registry: Any, ref: str, console: Console) -> None:
    folder = registry.export(ref)
    version = registry.version(ref)
    record = registry.decision(version.name, version.number)
    if record is not None and record.number > 1:
        Console(stderr=True, soft_wrap=True).print(
            f"the decision that counts is in decisions/{record.number}", highlight=False
        )
    console.print(str(folder), highlight=False)


def _sync(
    registry: Any, name: str | None, project: str, entity: str | None, console: Console
) -> None:
    from perennial.tracking.sync import sync

    names = _names(registry, name, "sync")
    if not names:
        console.print("The registry is empty: run perennial train first.", highlight=False)
    for lineage in names:
        changed = sync(
            registry,
            lineage,
            project=project,
            entity=entity,
            say=lambda line: console.print(line, markup=False, highlight=False),
        )
        if not changed:
            console.print(f"{lineage}: W&B is up to date", markup=False, highlight=False)


def _names(registry: Any, name: str | None, verb: str) -> list[str]:
    lineages: list[str] = registry.lineages()
    if name is not None and name not in lineages:
        raise RegistryError(
            f"This registry has no model named {name!r}.",
            where=f"perennial registry {verb}",
            mend=f"there are: {', '.join(lineages) or 'none yet'}",
        )
    return [name] if name else lineages


def _list(registry: Any, name: str | None, console: Console) -> None:
    names = _names(registry, name, "list")
    if not names:
        console.print("The registry is empty: run perennial train first.", highlight=False)
        return
    rows = [["version", "created (UTC)", "how", "verdict", "new", "history, change", "aliases"]]
    for lineage in names:
        aliases = registry.aliases(lineage)
        for version in registry.versions(lineage):
            metrics = version.manifest.get("metrics", {})
            rows.append(
                [
                    version.id,
                    version.created[:16].replace("T", " "),
                    str(version.manifest["how"]),
                    _verdict(version, registry),
                    _level(version, metrics.get("new")),
                    _retained(version, registry),
                    ", ".join(sorted(alias for alias, n in aliases.items() if n == version.number)),
                ]
            )
    print_table(rows, align="llllrrl", console=console)


def _verdict(version: Any, registry: Any) -> str:
    """What its last decision came to; empty for a version that founded its lineage."""
    record = registry.decision(version.name, version.number)
    if record is None or record.decision is None:
        return ""
    held_back = record.verdict == "promoted" and not record.applied
    return "promoted, not applied" if held_back else str(record.verdict)


def _retained(version: Any, registry: Any) -> str:
    """How history fared against the champion of then, on the same rows.

    Scores on history themselves are on other rows for each version, and tell nothing side by side.
    """
    record = registry.decision(version.name, version.number)
    checks = (record.decision or {}).get("checks", []) if record else []
    found = next((one for one in checks if one["name"] == "retention"), None)
    if found is None or found["estimate"] is None:
        return ""
    return value(found)


def _show(registry: Any, ref: str, console: Console) -> None:
    from perennial.steps.again import decision_files

    version = registry.version(ref)
    manifest = version.manifest
    record = registry.decision(version.name, version.number)
    files = None if record is None else decision_files(version, record)
    shown = {
        "version": version.id,
        "created": version.created,
        "parent": version.parent,
        "how": manifest["how"],
        "verdict": record.verdict if record and record.decision else None,
        "decision": {
            "number": record.number,
            "applied": record.applied,
            "decided_at": record.decided_at,
            "files": files,
        }
        if record
        else None,
        "model": manifest["model"],
        "labels": manifest["label_names"],
        "metrics": manifest["metrics"],
        "seed": manifest["seed"],
        "environment": manifest["environment"],
        "files": version.files,
    }
    console.print_json(json.dumps(shown, default=str))


def _level(version: Any, metrics: dict[str, float] | None) -> str:
    score = version.manifest["task"]["score"]
    return level(metrics[score["name"]], score["unit"]) if metrics else ""
