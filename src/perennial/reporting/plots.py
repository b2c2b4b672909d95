"""Plots as inline SVG, drawn with the page's own colours.

One language over all of them: grey is the champion and blue the candidate; orange and teal tell
new rows from history, and nothing else.

Shapes: N rows, C classes.
"""

from __future__ import annotations

import base64
import io
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.types import EvaluationReport

CHAMPION, CANDIDATE = "#8a94a6", "#2f6fed"
NEW, HISTORY = "#d9822b", "#12908e"
LOSS = "#c9372c"
LEAST_SPAN = 20
_INK = "#7b8494"
_WIDTH, _HEIGHT = 3.8, 2.3


def bars(metrics: Mapping[str, Any]) -> str:
    """Accuracy before and after on each holdout, from zero."""
    names = list(metrics["champion"])
    if sum(name.startswith("history/") for name in names) == 1:
        names = [name for name in names if not name.startswith("history/")]
    figure, axes = _axes(_WIDTH, max(_HEIGHT, 0.5 + 0.5 * len(names)))
    for row, name in enumerate(names):
        for offset, who, colour in ((-0.19, "champion", CHAMPION), (0.19, "candidate", CANDIDATE)):
            value = 100 * metrics[who][name]["accuracy"]
            axes.barh(row + offset, value, height=0.34, color=colour)
            axes.text(
                value + 1.5, row + offset, f"{value:.1f}", va="center", fontsize=8, color=_INK
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xlim(0, 112)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_xlabel("accuracy, %")
    return _svg(figure)


def learning_curve(curve: Sequence[Mapping[str, float]]) -> str:
    """Validation scores of new and history rows; dashed is where the champion stood."""
    figure, axes = _axes(_WIDTH, _HEIGHT)
    drawn: list[float] = []
    for name, colour in (("new", NEW), ("history", HISTORY)):
        points = [(point["step"], 100 * point[name]) for point in curve if name in point]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=colour, linewidth=1.8)
        axes.axhline(values[0], color=colour, linewidth=1, linestyle=(0, (4, 3)), alpha=0.8)
        drawn += values
    axes.set_ylim(*_window(drawn))
    axes.yaxis.set_major_locator(_whole_numbers())
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("validation accuracy, %")
    return _svg(figure)


def per_class(report: EvaluationReport, *, new: bool) -> str:
    """Accuracy of each class, champion to candidate, the largest loss first; at most 25 classes."""
    mask = report.is_new if new else ~report.is_new
    changes = []
    for label in np.unique(report.label[mask]):
        rows = mask & (report.label == label)
        before, after = (
            100 * float(who.score[rows].mean()) for who in (report.champion, report.candidate)
        )
        changes.append((after - before, before, after, report.label_names[int(label)]))
    changes = sorted(changes)[:25]
    figure, axes = _axes(_WIDTH, 0.75 + 0.24 * len(changes))
    for row, (change, before, after, _) in enumerate(changes):
        colour = LOSS if change < 0 else CHAMPION
        axes.plot([before, after], [row, row], color=colour, linewidth=2, alpha=0.8)
        axes.plot(before, row, "o", color=CHAMPION, markersize=6)
        # smaller, so that the champion's shows where both are right equally often
        axes.plot(after, row, "o", color=CANDIDATE, markersize=4.5)
    names = [name if len(name) <= 24 else name[:23] + "…" for *_, name in changes]
    axes.set_yticks(range(len(changes)), names)
    axes.set_ylim(len(changes) - 0.4, -0.6)
    axes.set_xlim(*_window([value for _, *both, _ in changes for value in both]))
    axes.xaxis.set_major_locator(_whole_numbers())
    axes.set_xlabel("accuracy, %")
    return _svg(figure)


def _window(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis of percentages: in fives around the values, 20 points wide at the least.

    A point lost must not look like a fall.
    """
    low = 5.0 * math.floor(min(values, default=0) / 5)
    high = 5.0 * math.ceil(max(values, default=100) / 5)
    if high - low < LEAST_SPAN:
        low = min(max((low + high - LEAST_SPAN) / 2, 0), 100 - LEAST_SPAN)
        high = low + LEAST_SPAN
    room = 0.03 * (high - low)  # for a mark that stands on an end
    return low - room, high + room


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True)


def interval(check: Mapping[str, Any]) -> str:
    """A check's estimate and interval against its threshold."""
    low, high = check["interval"]
    figure, axes = _axes(3.4, 0.62)
    colour = {"pass": "#1f8a4c", "reject": LOSS}.get(check["outcome"], "#b7791f")
    axes.plot([100 * low, 100 * high], [0, 0], color=colour, linewidth=5, solid_capstyle="butt")
    axes.plot(100 * check["estimate"], 0, "o", color=colour, markersize=8)
    axes.axvline(100 * check["threshold"], color=_INK, linewidth=1.2, linestyle=(0, (3, 2)))
    span = max(100 * high, 100 * check["threshold"], 0) - min(
        100 * low, 100 * check["threshold"], 0
    )
    left = min(100 * low, 100 * check["threshold"], 0)
    axes.set_xlim(left - 0.08 * span, left + 1.08 * span)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=7)
    return _svg(figure)


def thumbnail(image: npt.NDArray[Any]) -> str:
    """An image (H, W) or (C, H, W) of any range as a PNG data URI."""
    pixels = np.asarray(image, dtype=np.float64)
    pixels = np.nan_to_num(pixels, posinf=0.0, neginf=0.0)
    if pixels.ndim == 3:
        pixels = pixels.mean(axis=0)
    low, high = float(pixels.min()), float(pixels.max())
    grey = np.zeros_like(pixels) if high <= low else (pixels - low) / (high - low)
    rows = (255 * grey).round().astype(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=8, length=3)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    # fixed ids: the same cycle gives the same page
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "perennial"}):
        for text in figure.findobj(lambda item: hasattr(item, "set_fontfamily")):
            text.set_fontfamily("sans-serif")
            # a label name may hold a dollar sign
            text.set_parse_math(False)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace("#000000", "currentColor")
