"""``perennial compare``: runs, sweeps and versions side by side."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from perennial.errors import ConfigError
from perennial.verbs.parsing import Parser

USUAL = ("outputs", "multirun")
PAGE = "compare.html"
KEYS = """keys of --sort and --where, whole or by their end:
  verdict, run, version, model_name, created, trial
  metrics.candidate.new.accuracy, metrics.candidate.history.loss, metrics.champion...
  cost.wall_seconds, cost.optimizer_steps, forgetting.forgetting, serving.candidate.bytes
  config.method.replay.new_fraction, new_fraction

examples:
  perennial compare                                        all runs below outputs/ and multirun/
  perennial compare multirun/2026-11-25/10-00-00 --sort cost.wall_seconds --reverse
  perennial compare digits --against digits@champion       all versions of a lineage
  perennial compare --where "metrics.candidate.new.accuracy>0.9 and verdict=promoted"
"""


def compare_verb(arguments: Sequence[str]) -> None:
    """Compare what the arguments name, print the table and write the page.

    Raises:
        ConfigError: An argument names no run, or an expression cannot be read.
        RegistryError: A version is not there.
    """
    chosen = _parser().parse_args(list(arguments))
    _refuse_a_folder(chosen)

    from perennial.files import write_json
    from perennial.reporting.comparison import print_comparison, to_dict
    from perennial.tracking.compare.settings import short
    from perennial.tracking.compare.table import compare_runs

    found = collect(chosen.what, url=chosen.url, files=chosen.files, against=chosen.against)
    runs, unread, against, copies = found
    compared = compare_runs(
        runs,
        unread,
        sort=chosen.sort,
        reverse=chosen.reverse,
        where=chosen.where,
        against=against,
        copies=copies,
    )
    console, names = Console(soft_wrap=True), short(compared.settings)
    if chosen.json == "-":
        console.print_json(data=to_dict(compared))
    else:
        print_comparison(compared, console, names=names)
    if chosen.json not in (None, "-"):
        write_json(Path(chosen.json), to_dict(compared))
    if compared.rows:
        _write_page(compared, names, Path(chosen.html), errors=chosen.json == "-")


def collect(
    what: Sequence[str], *, url: str, files: str | None, against: str | None = None
) -> tuple[list[Any], list[Any], Any, int]:
    """Runs, what could not be read, the reference that was asked for, and how many were copies.

    Args:
        what: Folders, results and versions; none are the usual folders below this one.
        url: Of the registry.
        files: Its files.
        against: A run or version, as in ``what``; it need not be among them.

    Raises:
        ConfigError: An argument names no run.
        RegistryError: A version is not there.
    """
    from perennial.promotion.registry import Registry
    from perennial.tracking.compare.runs import Unread
    from perennial.tracking.compare.versions import Lineages, once

    lineages = Lineages(Registry(url=url, files=files, read_only=True))
    read = [one for argument in what or _usual() for one in _named(argument, lineages)]
    unread = {one.name: one for one in read if isinstance(one, Unread)}
    runs, copies = once([one for one in read if not isinstance(one, Unread)])
    if against is None:
        return runs, list(unread.values()), None, copies
    wanted = [one for one in _named(against, lineages) if not isinstance(one, Unread)]
    if len(wanted) != 1:
        raise ConfigError(
            f"{against!r} names {len(wanted)} runs that can be read, where one is needed.",
            where="--against",
            mend="name one run folder, or one version such as digits@champion",
        )
    # the very one among those shown, if it is there
    same = [one for one in runs if len(once([one, wanted[0]])[0]) == 1]
    return runs, list(unread.values()), (same or wanted)[0], copies


def _named(argument: str, lineages: Any) -> list[Any]:
    """The runs that one argument names."""
    from perennial.tracking.compare.folders import given, is_version_like
    from perennial.tracking.compare.versions import as_run

    path = Path(argument)
    plain = path.name == argument and not path.exists()
    if is_version_like(argument) or (plain and lineages.versions(argument)):
        return [as_run(version, lineages) for version in lineages.named(argument)]
    return [_read(folder, lineages) for folder in given(path)]


def _read(folder: Path, lineages: Any) -> Any:
    """A run folder's run with its version, and its settings from whichever has them."""
    from perennial.config import RUN_KEYS
    from perennial.tracking.compare.folders import configuration, read
    from perennial.tracking.compare.runs import Unread
    from perennial.tracking.compare.versions import with_version

    found = read(folder)
    if isinstance(found, Unread):
        return found
    run = with_version(found, lineages)
    # a version's are read already, and resolved
    if run.config is None and run.scored:
        run = replace(run, config=configuration(folder, without=RUN_KEYS))
    return run


def _usual() -> list[str]:
    found = [name for name in USUAL if Path(name).is_dir()]
    if not found:
        raise ConfigError(
            "There is neither outputs/ nor multirun/ in this folder.",
            where=str(Path.cwd()),
            mend="name folders of runs, or versions: perennial compare digits",
        )
    return found


def _parser() -> Parser:
    parser = Parser(
        prog="perennial compare",
        description="Compare runs, sweeps and versions: a table here, and a page of plots.",
        epilog=KEYS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="RUN",
        help="run folders, folders of runs, result.json files, versions (digits@3, "
        "digits@champion, digits for all); by default outputs/ and multirun/",
    )
    parser.add_argument("--sort", metavar="KEY", help="largest first; by default the best scores")
    parser.add_argument("--reverse", action="store_true", help="turn the order round")
    parser.add_argument("--where", metavar="EXPR", help="keep the runs that pass a comparison")
    parser.add_argument("--against", metavar="RUN", help="what the paired differences are from")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="- is standard output")
    parser.add_argument("--html", default=PAGE, metavar="FILE", help=f"the page; by default {PAGE}")
    parser.add_registry()
    return parser


def _refuse_a_folder(chosen: Any) -> None:
    """An argument that a flag before it has swallowed."""
    for flag in ("json", "html"):
        value = getattr(chosen, flag)
        if value not in (None, "-") and Path(value).is_dir():
            raise ConfigError(
                f"--{flag} {value} is a folder, and would be written as a file.",
                where="command line",
                mend=f"write --{flag}=FILE" + (", or --json=- " if flag == "json" else ""),
            )


def _write_page(compared: Any, names: Mapping[str, str], path: Path, *, errors: bool) -> None:
    from perennial import files
    from perennial.reporting.compare import render_comparison

    page = render_comparison(compared, names=names)
    files.write_bytes(path, page.encode())
    Console(stderr=errors, soft_wrap=True).print(f"\npage: {path}", highlight=False, markup=False)
