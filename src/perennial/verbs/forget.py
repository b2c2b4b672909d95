"""``perennial forget NAME ids=…|ids-file=…|where=…``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from perennial.data.query import KINDS, Query
from perennial.errors import ConfigError
from perennial.verbs.parsing import Parser

if TYPE_CHECKING:
    from perennial.promotion.erasure import Erasure
    from perennial.steps.forget import Plan

_MEND = "name rows in one way: ids=ID,ID or ids-file=PATH with one id a line or where=COLUMN=VALUE"


def forget_verb(arguments: Sequence[str]) -> None:
    """Forget rows, count what would be forgotten, or list what was.

    Raises:
        ConfigError: The rows are named in no way, or in several.
        RegistryError: There is no such lineage, or a cycle of it is running.
    """
    parser = Parser(
        prog="perennial forget",
        description="Remove rows from every memory, holdout and stored prediction of a lineage, "
        "and never take them in again. Without a query: list what was forgotten.",
    )
    parser.add_argument("name", metavar="NAME", help="the model_name of the runs")
    parser.add_argument(
        "query",
        nargs="*",
        default=[],  # else argparse says that it must be given
        metavar="QUERY",
        help="ids=A,B | ids-file=PATH | where=COLUMN=VALUE",
    )
    parser.add_argument("--dry-run", action="store_true", help="count, and change nothing")
    parser.add_registry()
    chosen = parser.parse_args(arguments)
    query = _query(chosen.query) if chosen.query else None

    from perennial.promotion.registry import Registry
    from perennial.steps.forget import forget, plan

    registry = Registry(url=chosen.url, files=chosen.files)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if query is None:
        registry.version(f"{chosen.name}@champion")  # says so where there is no such lineage
        _list(registry.erasures(chosen.name), chosen.name, console)
        return
    made = plan(registry, chosen.name, query, dry=chosen.dry_run)
    for line in told(made):
        console.print(line)
    if chosen.dry_run:
        console.print("Nothing was changed (--dry-run).")
        return
    done, deleted, unfinished = forget(registry, made)
    if unfinished:
        console.print(f"Unfinished cycles removed: {unfinished}; they start over when run.")
    if done is None:
        console.print(f"Nothing was left to forget; {deleted} files of earlier erasures deleted.")
    else:
        console.print(
            f"Forgotten: {deleted} files deleted; recorded as erasure {done.number} of "
            f"{chosen.name}."
        )


def told(made: Plan) -> list[str]:
    """What forgetting does, and what it does not, in lines."""
    lines = [f"{made.name}: {len(made.ids)} ids named, {len(made.known)} of them known here"]
    if made.unseen:
        lines.append(
            f"  {made.unseen} rows were not looked at: only their ids are kept, no column "
            f"{made.query.column!r}; name them by ids"
        )
    if not made.known:
        return lines
    roles = made.roles
    lines.append(
        f"  met as: training {roles['train']}, validation {roles['validation']}, "
        f"holdout {roles['holdout']}; versions: {made.counts['versions']}"
    )
    for kind, (before, after) in made.memory.items():
        if before != after:
            lines.append(f"  memory, {kind}: {before} rows, {after} from now on")
    for stem, (before, after) in made.holdouts.items():
        lines.append(f"  holdout of {stem}: {before} rows, {after} from now on")
    before, after = made.predictions
    if before != after:
        lines.append(f"  recorded predictions: {before} rows, {after} from now on")
    if made.holdouts:
        lines.append(
            "  later decisions rest on the smaller holdouts, with less power; earlier ones stand "
            "with their numbers"
        )
    if trained := roles["train"] + roles["validation"]:
        lines.append(
            f"  {trained} of the rows had a part in training: weights that learned from them still "
            f"serve; retrain from scratch to be rid of that, under model_name={made.name}-2"
        )
    return lines


def _query(arguments: Sequence[str]) -> Query:
    pairs = [argument.partition("=") for argument in arguments]
    given: Mapping[str, Any] = {key: value for key, _, value in pairs}
    odd = next((key for key, equals, _ in pairs if key not in KINDS or not equals), None)
    if odd is not None or len(pairs) != 1:
        what = f"{odd!r} names no rows." if odd is not None else "Rows are named in several ways."
        raise ConfigError(what, where="command line", mend=_MEND)
    ((kind, value),) = given.items()
    if kind == "where":
        column, equals, wanted = value.partition("=")
        if not column or not equals:
            raise ConfigError(f"{value!r} is no COLUMN=VALUE.", where="where", mend=_MEND)
        return Query(kind, column=column, value=wanted)
    ids = frozenset(one.strip() for one in _listed(kind, value) if one.strip())
    if not ids:
        raise ConfigError("There is no id.", where=kind, mend=_MEND)
    return Query(kind, ids=ids)


def _listed(kind: str, value: str) -> list[str]:
    if kind == "ids":
        return value.split(",")
    try:
        return Path(value).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The ids cannot be read: {error}.", where=f"ids-file={value}", mend=_MEND
        ) from None


def _list(found: Sequence[Erasure], name: str, console: Console) -> None:
    if not found:
        console.print(f"{name} was never told to forget anything.")
    for one in found:
        counts = one.counts
        console.print(
            f"{one.number}  {one.at[:16].replace('T', ' ')} UTC  by {one.query}: "
            f"ids {counts['ids']}, rows {counts['rows']}, versions {counts['versions']}"
        )
