"""W&B brought up to date with the registry, after runs offline, rollbacks and late uploads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from perennial.errors import ConfigError, RegistryError, first_line
from perennial.masking import mask_text
from perennial.tracking.mirror import MODEL, mirrored
from perennial.tracking.wandb import collection, draft, resolve_mode

if TYPE_CHECKING:
    from perennial.promotion.registry import Registry

ALIASES = ("candidate", "champion", "previous")
_WHERE = "perennial registry sync"


def sync(
    registry: Registry,
    name: str,
    *,
    project: str,
    entity: str | None = None,
    say: Callable[[str], None],
) -> int:
    """Give W&B the versions that it lacks, and aliases the places that they have here.

    The registry is the truth: called again, nothing changes. An alias is set before one that is
    out of date is taken away, so that there is a champion at any time.

    Args:
        registry: Where versions live.
        name: The lineage.
        project: W&B project.
        entity: Team or user; None for the account's default.
        say: Shows a line for each change.

    Returns:
        The number of changes.

    Raises:
        ConfigError: There is no key, or W&B was set to offline.
        RegistryError: W&B is out of reach, or keeps another lineage under this name.
    """
    _require_online()
    try:
        return _sync(registry, name, project=project, entity=entity, say=say)
    except RegistryError:
        raise
    except Exception as error:
        # of a client of the network: whatever it raises is the reason
        reason = mask_text(first_line(error))
        raise RegistryError(
            f"W&B could not be brought up to date ({type(error).__name__}: {reason})",
            where=_WHERE,
            mend="check the network, `wandb login` and --entity, and run it again; what was done "
            "already is not done twice",
        ) from error


def changes(
    wanted: Mapping[int, set[str]], found: Mapping[int, set[str]]
) -> tuple[dict[int, set[str]], dict[int, set[str]]]:
    """Aliases to set and then to take away, by version number.

    Args:
        wanted: Version number to its aliases in the registry.
        found: Version number to its aliases in W&B, of ours alone.

    Examples:
        >>> changes({1: set(), 2: {"champion"}}, {1: {"champion"}, 2: set()})
        ({2: {'champion'}}, {1: {'champion'}})
    """
    missing = {n: more for n, own in found.items() if (more := wanted.get(n, set()) - own)}
    stale = {n: less for n, own in found.items() if (less := own - wanted.get(n, set()))}
    return missing, stale


def _sync(
    registry: Registry, name: str, *, project: str, entity: str | None, say: Callable[[str], None]
) -> int:
    import wandb

    api = wandb.Api(overrides={"entity": entity} if entity else {}, timeout=30)
    path = f"{entity or api.default_entity}/{project}/{collection(name)}"
    known = _known(api, registry, name, path)
    absent = [one for one in registry.versions(name) if one.number not in known]
    for version in absent:
        say(f"{version.id}: uploaded")
    if absent:
        _upload(absent, name=name, project=project, entity=entity)
        known = _known(api, registry, name, path)
        if hidden := [version.id for version in absent if version.number not in known]:
            raise RegistryError(
                f"W&B took {', '.join(hidden)} and does not show it yet.",
                where=_WHERE,
                mend="run it again in a minute",
            )
    count = len(absent)
    wanted: dict[int, set[str]] = {}
    for alias, number in registry.aliases(name).items():
        wanted.setdefault(number, set()).add(alias)
    missing, _ = changes(wanted, _ours(known))
    for number, more in missing.items():
        known[number].aliases = sorted({*known[number].aliases, *more})
        known[number].save()
        say(f"{name}@{number}: now {', '.join(sorted(more))}")
    # W&B has moved what it knew elsewhere: what is left over is read anew
    known = _known(api, registry, name, path) if missing else known
    _, stale = changes(wanted, _ours(known))
    for number, less in stale.items():
        known[number].aliases = sorted(set(known[number].aliases) - less)
        known[number].save()
        say(f"{name}@{number}: no longer {', '.join(sorted(less))}")
    return count + len(missing) + len(stale)


def _known(api: Any, registry: Registry, name: str, path: str) -> dict[int, Any]:
    """Version number to the artifact that W&B has of it."""
    if not api.artifact_collection_exists(path, MODEL):
        return {}
    ours = {version.id: version for version in registry.versions(name)}
    known: dict[int, Any] = {}
    for artifact in api.artifacts(MODEL, path):
        version = ours.get(str(artifact.metadata.get("id")))
        if version is None or artifact.metadata.get("sha256") != version.files["version.yaml"]:
            raise RegistryError(
                f"W&B's {path}:{artifact.version} is {artifact.metadata.get('id')} of another "
                "registry.",
                where=_WHERE,
                mend="name the registry that it belongs to with --url, or another --project",
            )
        known[version.number] = artifact
    return known


def _ours(known: Mapping[int, Any]) -> dict[int, set[str]]:
    return {number: set(one.aliases) & set(ALIASES) for number, one in known.items()}


def _upload(versions: list[Any], *, name: str, project: str, entity: str | None) -> None:
    import wandb

    with tempfile.TemporaryDirectory() as folder:
        run = wandb.init(
            project=project,
            entity=entity,
            group=name,
            job_type="sync",
            name=f"{name}-sync",
            dir=folder,
            mode="online",
            settings=wandb.Settings(silent=True, console="off", init_timeout=30),
        )
        for version in versions:
            given = mirrored(version)
            artifact = draft(given["name"], given["kind"], given["files"], given["metadata"])
            run.log_artifact(artifact, aliases=list(given["aliases"])).wait(timeout=600)
        run.finish()


def _require_online() -> None:
    mode = resolve_mode(None)
    if mode != "online":
        raise ConfigError(
            "W&B is out of reach: it has no API key here, or was set to offline.",
            where=_WHERE,
            mend="run `wandb login`, and unset WANDB_MODE or run `wandb online`",
        )
