"""Checks a table before anything is trained on it: python check_data.py data/week_1.csv.

Perennial itself refuses rows that it cannot learn from; what only you can know about your data
stands here. Exit code 30, as Perennial's for bad data, stops a scheduler's chain.
"""

from __future__ import annotations

import sys

import pandas as pd

COLUMNS = {
    "customer": None,
    "months": (0, 1200),
    "euros": (0, 10_000),
    "calls": (0, 1000),
    "plan": (0, 1),
    "country": None,
    "leaves": None,
}
SHARE = (0.05, 0.95)


def problems(table: pd.DataFrame) -> list[str]:
    """What is wrong with a table, a sentence each."""
    found = [f"column {name} is missing" for name in COLUMNS if name not in table]
    for name, bounds in COLUMNS.items():
        if name not in table:
            continue
        if empty := int(table[name].isna().sum()):
            found.append(f"column {name} is empty in {empty} rows")
        if bounds and not table[name].dropna().between(*bounds).all():
            found.append(f"column {name} leaves {bounds[0]} to {bounds[1]}")
    if "customer" in table and table["customer"].duplicated().any():
        found.append("a customer is listed twice")
    if "leaves" in table:
        share = float((table["leaves"] == "yes").mean())
        if not SHARE[0] <= share <= SHARE[1]:
            found.append(f"{share:.0%} of the customers leave, which is hard to believe")
    return found


def main() -> None:
    """Check the tables that are named on the command line."""
    found = [f"{path}: {one}" for path in sys.argv[1:] for one in problems(pd.read_csv(path))]
    print("\n".join(found) or "in order: " + ", ".join(sys.argv[1:]))
    raise SystemExit(30 if found else 0)


if __name__ == "__main__":
    main()
