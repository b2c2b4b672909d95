"""A look at new rows as ``monitor.json`` keeps it, made by hand."""

from __future__ import annotations

from typing import Any

from perennial.monitoring.performance import BLIND
from perennial.monitoring.performance.estimated import AREA, CALIBRATED

SINCE = {"time": "2026-11-02T00:00:00", "looked_at": "2026-11-03T06:00:00+00:00", "windows": 2}


def shift(of: str, name: str, test: str, effect: float, **more: Any) -> dict[str, Any]:
    unit = {"ks": "standard deviations", "chi_square": "Cramér's V"}.get(test)
    told = {
        "unit": unit,
        "statistic": 0.3,
        "p": 0.4,
        "q": 0.5,
        "moved": False,
        "since": None,
        "psi": 0.01,
    }
    within = {"before": [0.04, 0.3], "within": [effect, effect, effect]}
    return {"of": of, "name": name, "test": test, "effect": effect, **told, **within, **more}


def window(day: int, *, alarm: bool, realised: float | None, estimated: float) -> dict[str, Any]:
    near = lambda value: [value - 0.03, value + 0.03]  # noqa: E731
    return {
        "sha256": f"{day}" * 64,
        "looked_at": f"2026-11-0{day + 1}T06:00:00+00:00",
        "rows": 400,
        "time": [f"2026-11-0{day}T00:00:01", f"2026-11-0{day}T23:59:00"],
        "alarm": {"drift": alarm, "performance": alarm},
        "estimated": {"now": estimated, "interval": near(estimated)},
        "realised": realised and {"mean": realised, "interval": near(realised), "n": 400},
    }


def look() -> dict[str, Any]:
    moved = {"moved": True, "since": SINCE, "q": 1e-30, "p": 1e-31}
    unseen = {"unseen": 0.1, "unseen_names": {"partner": 42}, "unseen_categories": 1}
    shifts = [
        shift("input", "amount", "ks", 0.8, **moved),
        shift("input", "channel", "chi_square", 0.4, **{**moved, "q": 1e-20}, **unseen),
        shift("input", "age", "ks", 0.05),
        shift("prediction", "confidence", "ks", 0.06),
        shift("features", "features", "mmd", 0.02, psi=None) | {"within": []},
    ]
    del shifts[-1]["psi"]
    estimate = {"then": 0.83, "now": 0.84, "interval": [0.8, 0.88], "alarms_below": 0.78}
    found = {"detector": "ADWIN", "row": 90, "row_id": "b", "time": None, "before": 0.83}
    return {
        "schema_version": 1,
        "model_name": "fraud",
        "version": "fraud@1",
        "created": "2026-11-04T06:00:00+00:00",
        "status": "alarm",
        "exit_code": 40,
        "alarm": True,
        "reason": "amount (by 0.8 standard deviations) moved in 400 rows",
        "task": {"score": "accuracy", "unit": "points"},
        "window": {
            "sha256": "3" * 64,
            "rows": 400,
            "labelled": 0,
            "time": ["2026-11-03T00:00:01", "2026-11-03T23:59:00"],
            "earlier": 2,
        },
        "checks": {
            "false_alarms_per_year": 1.0,
            "every_seconds": 86_400.0,
            "kinds": ["drift", "performance"],
        },
        "drift": {
            "alarm": True,
            "reason": "amount moved",
            "overall": 1e-30,
            "threshold": 0.0014,
            "probability": 0.0014,
            "minimum_effect": 0.1,
            "rows": 400,
            "counted_rows": 400,
            "joint_rows": 400,
            "reference_rows": 6_000,
            "version": "fraud@1",
            "resolution": 0.11,
            "shifts": shifts,
            "starts": ["a", "b", "c"],
            "pictures": [
                {
                    "of": "input",
                    "name": "amount",
                    "values": None,
                    "kind": "number",
                    "edges": [0.0, 1.0, 2.0],
                    "then": [0.7, 0.3],
                    "now": [0.2, 0.8],
                },
                {
                    "of": "input",
                    "name": "channel",
                    "values": None,
                    "kind": "category",
                    "names": ["app", "a name that is longer than there is room"],
                    "then": [0.5, 0.5],
                    "now": [0.9, 0.1],
                },
            ],
            "notes": [],
        },
        "performance": {
            "alarm": True,
            "reason": "accuracy fell",
            "score": "accuracy",
            "scored": 800,
            "waiting": 400,
            "realised": {
                "then": {"mean": 0.83, "interval": [0.81, 0.85], "n": 1_600},
                "now": {"mean": 0.66, "interval": [0.63, 0.69], "n": 800},
                "alarms": [{**found, "since_row_id": "a", "since": "2026-11-02", "after": 0.6}],
            },
            "estimated": {
                "estimates": [{"how": CALIBRATED, **estimate}, {"how": AREA, **estimate}],
                "missing": None,
                "caution": BLIND,
            },
            "per_year": {"windows": 365.0, "rows": 146_000.0},
            "watched": {},
        },
        "untold": None,
        "windows": [
            window(1, alarm=False, realised=0.84, estimated=0.83),
            window(2, alarm=True, realised=0.66, estimated=0.84),
            window(3, alarm=True, realised=None, estimated=0.84),
        ],
        "notes": ["age: constant in the window, at 44"],
        "page": None,
        "tracking": {"run_id": None, "url": None, "directory": None},
        "error": None,
    }
