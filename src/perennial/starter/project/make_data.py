"""Makes the example's data: python make_data.py. Your own tables take its place.

Long-standing customers used to stay. In week 1 a competitor woos them: on the new plan it is they
who leave. What was known of the old plan is still true, and must not be forgotten.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def customers(rows: int, *, plan: int, first: int, seed: int) -> pd.DataFrame:
    """A table of customers on one plan, numbered from ``first``."""
    draw = np.random.default_rng(seed)
    months = draw.uniform(0, 72, rows)
    euros = draw.uniform(10, 120, rows)
    calls = draw.poisson(2, rows)
    loyalty = (months - 36) / 12 * (-1 if plan else 1)
    unrest = (calls - 2) / 1.5 + (euros - 65) / 40
    leaves = draw.logistic(size=rows) / 4 < unrest - loyalty
    return pd.DataFrame(
        {
            "customer": [f"c{number}" for number in range(first, first + rows)],
            "months": months.round(1),
            "euros": euros.round(2),
            "calls": calls,
            "plan": plan,
            "country": draw.choice(["at", "be", "cz"], rows),
            "leaves": np.where(leaves, "yes", "no"),
        }
    )


def main() -> None:
    """Write history and the first new week."""
    folder = Path("data")
    folder.mkdir(exist_ok=True)
    history = customers(4000, plan=0, first=0, seed=0)
    week = customers(2000, plan=1, first=4000, seed=1)
    history.to_csv(folder / "history.csv", index=False)
    week.to_csv(folder / "week_1.csv", index=False)
    print(f"{folder}/history.csv: {len(history)} rows, {folder}/week_1.csv: {len(week)} rows")


if __name__ == "__main__":
    main()
