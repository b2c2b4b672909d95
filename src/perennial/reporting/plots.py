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
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import escape

from perennial.notation import level
from perennial.types import EvaluationReport

CHAMPION, CANDIDATE = "#8a94a6", "#2f6fed"
NEW, HISTORY = "#d9822b", "#12908e"
LOSS = "#c2410c"
LEAST_SPAN = 20
BINS = 10
LEAST_ROWS = 5
_INK = "#7b8494"
_WIDTH, _HEIGHT = 3.8, 2.3


@dataclass(frozen=True)
class Score:
    """What the per-example score's mean is called and shown in.

    Attributes:
        name: In words.
        unit: ``points`` for shares, which are drawn in percent, else empty.
    """

    name: str = "accuracy"
    unit: str = "points"

    @property
    def title(self) -> str:
        """The name at the start of a sentence."""
        return self.name[:1].upper() + self.name[1:]

    @property
    def factor(self) -> int:
        """From the score to what is drawn."""
        return 100 if self.unit == "points" else 1

    @property
    def axis(self) -> str:
        """What stands at its axis."""
        return f"{self.name}, %" if self.unit == "points" else self.name


def learning_curve(curve: Sequence[Mapping[str, float]], score: Score) -> str:
    """Validation scores of new and history rows; dashed is where the champion stood."""
    figure, axes = bare_axes(_WIDTH, _HEIGHT)
    drawn: list[float] = []
    for name, colour in (("new", NEW), ("history", HISTORY)):
        points = [(point["step"], score.factor * point[name]) for point in curve if name in point]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=colour, linewidth=1.8)
        axes.axhline(values[0], color=colour, linewidth=1, linestyle=(0, (4, 3)), alpha=0.8)
        drawn += values
    scaled(axes, drawn, score)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(f"validation {score.axis}")
    words = f"{score.title} of new and history validation rows over the optimizer's steps"
    return as_svg(figure, words)


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
    figure, axes = bare_axes(_WIDTH, 0.75 + 0.24 * len(changes))
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
    told = "; ".join(f"{name} {before:.1f}% to {after:.1f}%" for _, before, after, name in changes)
    return as_svg(figure, f"Accuracy of each class, champion to candidate: {told}")


def reliability(report: EvaluationReport, *, new: bool) -> str:
    """Accuracy against stated confidence in ten bins; on the diagonal a model is calibrated.

    The larger a mark, the more rows; a bin of a few rows would show chance and is left out.
    """
    mask = report.is_new if new else ~report.is_new
    figure, axes = bare_axes(_WIDTH, _WIDTH * 0.8)
    axes.plot([0, 100], [0, 100], color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    models = ((report.champion, CHAMPION, "o"), (report.candidate, CANDIDATE, "s"))
    for predictions, colour, mark in models:
        assert predictions.probabilities is not None
        said = predictions.probabilities[mask].max(axis=1)
        right = predictions.prediction[mask] == report.label[mask]
        confidence, accuracy, rows = confidence_bins(said, right)
        enough = rows >= LEAST_ROWS
        confidence, accuracy, rows = confidence[enough], accuracy[enough], rows[enough]
        axes.plot(100 * confidence, 100 * accuracy, color=colour, linewidth=1.3, alpha=0.8)
        size = 12 + 110 * rows / len(said)
        axes.scatter(100 * confidence, 100 * accuracy, s=size, color=colour, marker=mark, zorder=3)
    axes.set_xlim(-3, 103)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("stated confidence, %")
    axes.set_ylabel("accuracy, %")
    part = "new rows" if new else "history"
    return as_svg(figure, f"Accuracy against stated confidence of champion and candidate, {part}")


def confidence_bins(
    confidence: npt.NDArray[Any], right: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Mean confidence, accuracy and number of rows of each bin that has any.

    Args:
        confidence: Of the predicted class (N,), in [0, 1].
        right: Whether the prediction is true (N,).
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = np.bincount(place, minlength=BINS)
    used = rows > 0
    means = (np.bincount(place, weights=values, minlength=BINS) for values in (confidence, right))
    first, second = (total[used] / rows[used] for total in means)
    return first, second, rows[used]


def course(versions: Sequence[Mapping[str, Any]], score: Score) -> str:
    """Scores of versions on their own new rows and on one holdout; hollow ones never served."""
    figure, axes = bare_axes(2 * _WIDTH, _HEIGHT)
    drawn: list[float] = []
    for name, colour, mark in (("new", NEW, "s"), ("history", HISTORY, "o")):
        known = [(i, one) for i, one in enumerate(versions) if one[name] is not None]
        served = [(i, score.factor * one[name]) for i, one in known if one["served"]]
        axes.plot(*zip(*served, strict=True) if served else ([], []), color=colour, linewidth=1.6)
        for i, one in known:
            face = colour if one["served"] else "none"
            at = score.factor * one[name]
            axes.plot(i, at, mark, color=colour, markerfacecolor=face, markersize=6)
        drawn += [score.factor * one[name] for _, one in known]
    step = -(-len(versions) // 12)
    axes.set_xticks(range(0, len(versions), step), [str(v["number"]) for v in versions[::step]])
    axes.set_xlim(-0.4, len(versions) - 0.6)
    scaled(axes, drawn, score)
    axes.set_xlabel("version")
    axes.set_ylabel(score.axis)
    told = "; ".join(
        f"version {one['number']}"
        + "".join(
            f", {n} {level(one[n], score.unit)}" for n in ("new", "history") if one[n] is not None
        )
        + ("" if one["served"] else ", never served")
        for one in versions
    )
    return as_svg(
        figure, f"{score.title} of the versions on new rows and on the oldest holdout: {told}"
    )


def scaled(axes: Any, values: Sequence[float], score: Score) -> None:
    """The axis of a score: of percentages in whole ones, of others as the library has it."""
    if score.unit == "points":
        axes.set_ylim(*_window(values))
        axes.yaxis.set_major_locator(_whole_numbers())


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


def bare_axes(width: float, height: float) -> tuple[Any, Any]:
    """A figure of so many inches and its axes, in the page's manner."""
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


def as_svg(figure: Any, words: str) -> str:
    """The figure, with words for whoever cannot see it."""
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
    svg = svg[svg.index("<svg") :].replace("#000000", "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(words)}" ', 1)
