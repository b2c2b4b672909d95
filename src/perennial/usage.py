"""What ``--help`` says, read from the comments of ``conf/`` without composing a configuration.

Hydra's own help composes every group twice, which takes longer than a person waits for help.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

EXIT_CODES = (
    "0 promoted",
    "10 skipped, nothing to do",
    "20 rejected",
    "21 inconclusive",
    "30 bad data",
    "1 failed",
)
MONITOR_CODES = ("0 calm", "40 alarm", "30 bad data", "1 failed")
# verbs that refuse several values at once
SINGLE = ("monitor", "backtest")


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether ``-h`` or ``--help`` is among the arguments."""
    return bool({"-h", "--help"} & set(arguments))


def help_text(name: str, folders: Sequence[Path], *, train: str = "python train.py") -> str:
    """Purpose, groups, settings and flags of a main configuration.

    Args:
        name: ``train``, ``evaluate``, ``adopt``, ``check``, ``decide``, ``monitor`` or
            ``backtest``.
        folders: Where the groups lie; the first holds the main configuration.
        train: What a cycle was called as, ``perennial train`` outside of the repository.
    """
    text = (folders[0] / f"{name}.yaml").read_text()
    lines = text.splitlines()
    command, *purpose = opening(lines)
    chosen = {
        group: choice
        for entry in yaml.safe_load(text)["defaults"]
        if isinstance(entry, dict)
        for group, choice in entry.items()
        if " " not in group
    }
    others = {path.name for path in folders[0].iterdir() if path.is_dir()} - chosen.keys()
    parts = [command, *purpose, "", "Groups (* is the default), each with a command that uses it:"]
    for group, choice in chosen.items():
        options = {p.stem: p for folder in folders for p in sorted((folder / group).glob("*.yaml"))}
        several = choice if isinstance(choice, list) else [choice]
        if isinstance(choice, list):  # what can be chosen together, and nothing else
            options = {option: path for option, path in options.items() if option in several}
        if options:
            parts.append(f"  {group}")
        width = max(map(len, options), default=0)
        for option, path in options.items():
            mark = "*" if option in several else " "
            example = next(iter(opening(path.read_text().splitlines())), "")
            if name != "train":
                verb = "data check" if name == "check" else name
                own = f"perennial {verb}" + (" digits@2" if name == "decide" else "")
                words = example.replace("python train.py", own, 1).split(" ")
                # a group that this verb does not have
                example = " ".join(one for one in words if one.partition("=")[0] not in others)
            parts.append(f"    {mark} {option:{width}}  {example}")
    parts += ["", "Settings of the run:", *(f"  {line}" for line in _settings(lines))]
    parts += [
        "",
        "Flags:",
        "  --cfg job      every setting with its value, as this command would use it",
        *([] if name in SINGLE else ["  -m, --multirun several values at once: seed=0,1,2"]),
        "  --config-dir D groups of your own in folder D",
        "  --hydra-help   Hydra's own flags",
    ]
    if codes := {"train": EXIT_CODES, "decide": EXIT_CODES, "monitor": MONITOR_CODES}.get(name):
        parts += ["", f"Exit codes: {' · '.join(codes)}"]
    text = "\n".join(parts) + "\n"
    return text.replace("python train.py", train) if name == "train" else text


def opening(lines: Sequence[str]) -> list[str]:
    """The comment that a file opens with, without Hydra's directive."""
    found = []
    for line in lines:
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            found.append(line.removeprefix("#").strip())
    return found


def _settings(lines: Sequence[str]) -> list[str]:
    """The keys that are this command's own, with their comments and those below them."""
    found, kept = [], False
    for line in lines:
        if line.startswith("# a cycle's settings"):  # what train takes is taken, and says nothing
            break
        if line[:1].isalpha():
            kept = line not in ("defaults:", "hydra:")
        if kept and line:
            found.append(line)
    return found
