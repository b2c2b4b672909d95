"""Text in lines: aligned columns and wrapped paragraphs, without a trailing blank anywhere."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len

_GLUE = "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"


def columns(rows: Sequence[Sequence[str]], *, align: str) -> list[str]:
    """One line per row, never cut and never folded, whatever the terminal's width.

    Args:
        rows: The header first; every row as long as ``align``.
        align: ``l`` or ``r`` for each column.

    >>> columns([["on", "rows"], ["new", "5"]], align="lr")
    ['on   rows', 'new     5']
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]

    lines = []
    for row in rows:
        cells = []
        for cell, width, side in zip(row, widths, align, strict=True):
            blank = " " * (width - cell_len(cell))
            cells.append(blank + cell if side == "r" else cell + blank)
        lines.append("  ".join(cells).rstrip())
    return lines


def paragraph(text: str, *, width: int, indent: int) -> list[str]:
    """A text in lines of at most ``width`` characters; ``p = 0.01`` stays in one of them."""
    lines = textwrap.wrap(
        text.replace(" = ", _GLUE),
        width=max(width, indent + 20),
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_GLUE, " = ") for line in lines]
