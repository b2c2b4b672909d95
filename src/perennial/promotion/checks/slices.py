"""Parts of the rows that are looked at alone: by column, and by true label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from perennial.errors import ConfigError, EvaluationError
from perennial.promotion.case import Case
from perennial.promotion.checks.vetoes import Suspect
from perennial.promotion.policy import Policy
from perennial.promotion.words import listed
from perennial.types import Strings

# a column with more values is an id or a number, and its slices are too small to tell anything
_MOST_VALUES = 50


def require_slices(policy: Policy, columns: Mapping[str, Iterable[str]]) -> None:
    """Refuse, before any training, slices that the rows do not have.

    Args:
        policy: Names the columns.
        columns: Slice column of the rows to its values.

    Raises:
        ConfigError: A column is absent, has too many values, or is called ``class``.
    """
    for name in wanted(policy, columns):
        problem = mend = None
        if name not in columns:
            problem = f"The rows have no slice column {name!r}."
            mend = f"name it in data.slice_columns; there are {listed(sorted(columns)) or 'none'}"
        elif name == "class":
            problem = "The slice column 'class' would be confused with the slices by true label."
            mend = "rename it, or leave it out of data.slice_columns"
        elif (count := len(set(columns[name]) - {""})) > _MOST_VALUES:
            problem = (
                f"The slice column {name!r} has {count} values; at most {_MOST_VALUES} can be told "
                "apart."
            )
            mend = "group its values, or leave it out of gate.slices.columns"
        if problem:
            raise ConfigError(problem, where="gate.slices.columns", mend=mend)


def wanted(policy: Policy, columns: Iterable[str]) -> list[str]:
    """Slice columns that a policy looks at."""
    return sorted(columns if policy.slices.columns is None else policy.slices.columns)


def suspects(case: Case) -> tuple[list[Suspect], list[Suspect]]:
    """Slices to test for harm, and those that are too small for it.

    Raises:
        EvaluationError: A slice column is absent or has too many values.
    """
    report, settings = case.report, case.policy.slices
    try:
        require_slices(case.policy, {n: np.unique(v) for n, v in report.slices.items()})
    except ConfigError as error:
        raise EvaluationError(error.what, where=error.where, mend=error.mend) from error
    columns: dict[str, Strings] = {
        name: report.slices[name] for name in wanted(case.policy, report.slices)
    }
    if settings.classes and report.has_one_class:
        columns["class"] = np.array(report.label_names)[report.label]
    tested: list[Suspect] = []
    small: list[Suspect] = []
    for part, rows in case.parts.items():
        for column, values in columns.items():
            for value in np.unique(values[rows & (values != "")]).tolist():
                mask = rows & (values == value)
                one = Suspect(
                    f"slice/{part}/{column}={value}",
                    f"{column} {value} ({part})",
                    mask,
                    settings.margin,
                )
                enough = case.independent(mask) >= settings.minimum_rows
                (tested if enough else small).append(one)
    return tested, small
