"""``compare.html``: runs side by side on one self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perennial import clock
from perennial.notation import level
from perennial.reporting.comparison import (
    PARTS,
    Compared,
    brief,
    explained,
    label,
    shown_gain,
    shown_level,
    shown_setting,
    verdict,
)
from perennial.reporting.scale import Scale, window
from perennial.reporting.template import pages

# rows in sight, drawings of one run each, points with their intervals
ROWS, EACH, BARRED = 40, 24, 40
LEAST_SPAN = 0.05


def render_comparison(found: Compared, *, names: Mapping[str, str]) -> str:
    """The page.

    Args:
        found: At least one row.
        names: Key of a setting that differs to its short name.

    Returns:
        HTML without scripts and without references to anything outside itself.
    """
    environment = pages()
    unit = found.score.unit if found.score else ""
    rows = [_row(number, row, found, unit) for number, row in enumerate(found.rows, start=1)]
    return environment.get_template("compare.html.j2").render(
        title=_title(found),
        score=found.score.name.replace("_", " ") if found.score else "",
        percent=unit == "points",
        explained=explained(found) if found.score else "",
        rows=rows[:ROWS],
        folded=rows[ROWS:],
        parts=[part for part in PARTS if any(part in row.levels for row in found.rows)],
        pairs=[part for part in PARTS if any(part in row.against for row in found.rows)],
        settings=[(key, names[key]) for key in found.settings],
        champion=_champion(found, unit),
        reference=brief(found.reference) if found.reference is not None else None,
        scatter=_scatter(found, unit),
        kinds=sorted({row["kind"] for row in rows} - {"founded"}),
        forest=_forest(found, unit),
        curves=_curves(found, unit),
        costs=_costs(found),
        unread=found.unread,
        notes=found.notes,
        created=clock.now().isoformat(timespec="minutes")[:16].replace("T", " "),
        each=EACH,
    )


def _title(found: Compared) -> str:
    names = sorted({str(row.run.result["model_name"]) for row in found.rows})
    count = len(found.rows)
    return f"{count} run{'' if count == 1 else 's'} of {', '.join(names[:3])}" + (
        f" and {len(names) - 3} more" if len(names) > 3 else ""
    )


def _row(number: int, row: Any, found: Compared, unit: str) -> dict[str, Any]:
    cost = row.run.result["cost"] or {}
    return {
        "number": number,
        "name": brief(row.run),
        "path": row.run.name if row.run.name != brief(row.run) else "",
        "verdict": verdict(row.run),
        "kind": row.run.verdict,
        "reference": row.run is found.reference,
        "levels": {part: _split(shown_level(one, unit)) for part, one in row.levels.items()},
        "pairs": {part: _split(shown_gain(one, unit)) for part, one in row.against.items()},
        "settings": {key: shown_setting(key, value) for key, value in row.settings.items()},
        "time": f"{cost['wall_seconds']:,.3g} s" if cost else "",
    }


def _split(text: str) -> tuple[str, str]:
    value, _, bounds = text.partition(" ")
    return value, bounds


def _champion(found: Compared, unit: str) -> dict[str, Any] | None:
    if found.champion is None:
        return None
    name, levels = found.champion
    return {
        "name": name,
        "levels": {part: _split(shown_level(one, unit)) for part, one in levels.items()},
    }


def axis(values: Iterable[float], *, unit: str) -> Scale:
    """An axis around levels with some room, five points wide at the least, shares in [0, 1]."""
    low, high = min(values := list(values)), max(values)
    room = max(0.06 * (high - low), (LEAST_SPAN - (high - low)) / 2 if unit == "points" else 0.0)
    low, high = low - (room or 1.0), high + (room or 1.0)
    if unit == "points":
        low, high = max(low, -0.02), min(high, 1.02)
    return Scale(low, high)


def _ticks(scale: Scale, unit: str) -> list[dict[str, Any]]:
    kept = [t for t in scale.ticks() if unit != "points" or -1e-9 <= t <= 1 + 1e-9]
    texts = [f"{100 * t:.3g}" if unit == "points" else f"{t:.3g}" for t in kept]
    return [{"at": scale.place(t), "text": text} for t, text in zip(kept, texts, strict=True)]


def _scatter(found: Compared, unit: str) -> dict[str, Any] | None:
    """Plasticity across and retention upward; None where no run has both."""
    both = [
        (number, row)
        for number, row in enumerate(found.rows, start=1)
        if all(part in row.levels for part in PARTS)
    ]
    if not both:
        return None
    shown = [(str(number), brief(row.run), row.run.verdict, row.levels) for number, row in both]
    if found.champion is not None and all(part in found.champion[1] for part in PARTS):
        shown.append(("", f"{found.champion[0]}, the champion", "champion", found.champion[1]))
    ends = {part: [e for *_, levels in shown for e in _ends(levels[part])] for part in PARTS}
    x, y = (axis(ends[part], unit=unit) for part in PARTS)
    points = []
    for place, (number, name, kind, levels) in enumerate(shown):
        new, history = levels["new"], levels["history"]
        words = ", ".join(f"{shown_level(levels[part], unit)} on {part}" for part in PARTS)
        points.append(
            {
                "x": x.place(new.value),
                "y": 100 - y.place(history.value),
                "wide": [x.place(end) for end in _ends(new)],
                "tall": [100 - y.place(end) for end in _ends(history)],
                "barred": place < BARRED or kind == "champion",
                "number": number if place < BARRED else "",
                "kind": kind,
                "words": f"{name}: {kind}, {words}",
            }
        )
    return {
        "points": points[::-1],  # the first lie on top
        "x": _ticks(x, unit),
        "y": [{**tick, "at": 100 - tick["at"]} for tick in _ticks(y, unit)],
    }


def _ends(one: Any) -> Sequence[float]:
    return one.interval or (one.value, one.value)


def _forest(found: Compared, unit: str) -> dict[str, Any] | None:
    """Paired differences from the reference, each run's new and history one above the other."""
    rows = [(n, row) for n, row in enumerate(found.rows, start=1) if row.against][:EACH]
    if not rows:
        return None
    scale = window([end for _, row in rows for one in row.against.values() for end in _ends(one)])
    drawn = [
        {
            "number": number,
            "name": brief(row.run),
            "bars": [
                {
                    "part": part,
                    "y": 10 if part == "new" else 24,
                    "at": scale.place(one.value),
                    "low": scale.place(_ends(one)[0]),
                    "high": scale.place(_ends(one)[1]),
                    "words": f"{shown_gain(one, unit)} on {one.n:,} rows of {part}",
                    "shown": shown_gain(one, unit).partition(" ")[0],
                }
                for part in PARTS
                if (one := row.against.get(part)) is not None
            ],
        }
        for number, row in rows
    ]
    factor = 100 if unit == "points" else 1
    ticks = [
        {"at": scale.place(t), "text": f"{factor * t:+.3g}" if t else "0"} for t in scale.ticks()
    ]
    return {"rows": drawn, "middle": scale.place(0.0), "ticks": ticks}


def _curves(found: Compared, unit: str) -> dict[str, Any] | None:
    """A small drawing of each run's validation scores, all on the same axes."""
    with_curve = [
        (number, row, (row.run.result.get("validation") or {}).get("curve") or [])
        for number, row in enumerate(found.rows, start=1)
    ]
    kept = [one for one in with_curve if len(one[2]) > 1][:EACH]
    values = [p[part] for *_, curve in kept for p in curve for part in PARTS if _known(p, part)]
    if not values:
        return None
    y = axis(values, unit=unit)
    last = max(point["step"] for *_, curve in kept for point in curve)
    x = Scale(0.0, float(last) or 1.0)
    drawn = [
        {
            "number": number,
            "name": brief(row.run),
            "lines": [
                {"part": part, "points": " ".join(places)}
                for part in PARTS
                if (
                    places := [
                        f"{x.place(p['step'])},{100 - y.place(p[part]):.3f}"
                        for p in curve
                        if _known(p, part)
                    ]
                )
            ],
            "words": ", ".join(
                f"{part} {level(curve[-1][part], unit)}"
                for part in PARTS
                if _known(curve[-1], part)
            ),
        }
        for number, row, curve in kept
    ]
    ticks = [{**tick, "at": 100 - tick["at"]} for tick in _ticks(y, unit)]
    return {"runs": drawn, "ticks": ticks[:: max(1, len(ticks) // 3)], "last": f"{last:,.0f}"}


def _known(point: Mapping[str, Any], part: str) -> bool:
    return point.get(part) is not None


def _costs(found: Compared) -> list[dict[str, Any]]:
    """Bars of the time in the cycle, the most expensive one as wide as the page."""
    rows = [(n, row) for n, row in enumerate(found.rows, start=1) if row.run.result["cost"]][:EACH]
    most = max((row.run.result["cost"]["wall_seconds"] for _, row in rows), default=0.0)
    told = []
    for number, row in rows:
        cost = row.run.result["cost"]
        told.append(
            {
                "number": number,
                "name": label(row.run) if not row.run.candidate else row.run.candidate,
                "width": round(100 * cost["wall_seconds"] / most, 2) if most else 0,
                "time": f"{cost['wall_seconds']:,.3g} s",
                "more": f"{cost['optimizer_steps']:,} steps, {cost['train_rows']:,} rows, "
                f"{cost['peak_memory_bytes'] / 2**20:,.0f} MiB",
            }
        )
    return told
