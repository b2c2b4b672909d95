"""Intents of what people say: the domains of CLINC150 in two halves, then the intents of a bank.

S. Larson et al., An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction,
EMNLP 2019 (CLINC150); I. Casanueva et al., Efficient Intent Detection with Dual Sentence Encoders,
NLP4ConvAI 2020 (Banking77).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets

from perennial.data.opening import open_source
from perennial.data.published import located
from perennial.errors import ConfigError, DataError, first_line

Row = dict[str, str]

PARTS = ("first", "second", "banking77")
# the names that the files of CLINC150 give their parts
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_BANK = "banking77"
_MEND = "name the folder that holds clinc150 and banking77 as they are published"


def intents(
    *, path: str, part: str, per_domain: int | None = None, per_intent: int | None = None
) -> datasets.Dataset:
    """What people said, and what they wanted.

    Args:
        path: Folder that holds ``clinc150/data_full.json`` and ``clinc150/domains.json``, and
            ``banking77/train.csv`` and ``banking77/test.csv``; ``published:`` as
            `perennial.data.published` has them.
        part: ``first`` is the first five domains of CLINC150 with 15 intents each, ``second`` the
            five others, ``banking77`` the 77 intents of the other data set, one of which,
            ``exchange_rate``, CLINC150 has too.
        per_domain: Keeps so many intents of each domain, the first by name; None keeps all.
        per_intent: Of these, keeps so many rows of each split, the first; None keeps all.

    Returns:
        Columns ``text``, ``label`` (the intent), ``domain``, and ``split``, as the files divide
        them: ``train``, ``validation`` (CLINC150 alone) or ``test``. Rows of no intent (``oos``)
        are left out.

    Raises:
        ConfigError: There is no such part, or a number is below 1.
        DataError: A file is missing or not of this form.
    """
    fewest = min(1 if given is None else given for given in (per_domain, per_intent))
    if part not in PARTS or fewest < 1:
        raise ConfigError(
            f"part is {part!r}, per_domain is {per_domain}, and per_intent is {per_intent}.",
            where="data.history, data.new (part, per_domain, per_intent)",
            mend=f"use {', '.join(PARTS)}, and whole numbers from 1 or null",
        )
    rows = _banking(path) if part == _BANK else _clinc(path, part)
    return datasets.Dataset.from_list(_first(rows, per_domain, per_intent))


def _clinc(path: str, part: str) -> list[Row]:
    folder = Path(located(f"{path}/clinc150"))
    said, domains = _read(folder / "data_full.json"), _read(folder / "domains.json")
    try:
        names = list(domains)[:5] if part == "first" else list(domains)[5:]
        domain = {intent: name for name in names for intent in domains[name]}
        return [
            {"text": text, "label": intent, "domain": domain[intent], "split": split}
            for theirs, split in _SPLITS.items()
            for text, intent in said[theirs]
            if intent in domain
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(
            "These are no pairs of text and intent under train, val and test, with the intents of "
            "each domain.",
            where=str(folder),
            mend=_MEND,
        ) from error


def _banking(path: str) -> list[Row]:
    found = []
    folder = located(f"{path}/{_BANK}")
    for split in ("train", "test"):
        where = str(Path(folder, f"{split}.csv"))
        table = open_source(where, name=split)
        if not {"text", "category"} <= set(table.column_names):
            raise DataError("There are no columns text and category.", where=where, mend=_MEND)
        found += [
            {"text": row["text"], "label": row["category"], "domain": _BANK, "split": split}
            for row in table
        ]
    return found


def _first(rows: list[Row], per_domain: int | None, per_intent: int | None) -> list[Row]:
    """The rows of the first intents of each domain, the first of each intent and split."""
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row["domain"], set()).add(row["label"])
    chosen = {domain: set(sorted(names)[:per_domain]) for domain, names in labels.items()}
    met: Counter[tuple[str, str]] = Counter()
    kept = []
    for row in rows:
        key = (row["label"], row["split"])
        met[key] += 1
        if row["label"] in chosen[row["domain"]] and (per_intent is None or met[key] <= per_intent):
            kept.append(row)
    return kept


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"The intents cannot be read: {first_line(error)}",
            where=str(path),
            mend=_MEND,
        ) from error
