from __future__ import annotations

import itertools

from perennial.reporting.layout import columns, paragraph


def test_columns_are_aligned_whole_and_without_trailing_blanks() -> None:
    rows = [
        ["version", "new", "aliases"],
        ["m@1", "3.2%", ""],
        ["m@12", "100.0%", "a long one, " * 20],
    ]
    lines = columns(rows, align="lrl")
    assert lines == [line.rstrip() for line in lines]
    assert [line.split() for line in lines] == [" ".join(row).split() for row in rows]
    ends = [line.index(cell) + len(cell) for line, (_, cell, _) in zip(lines, rows, strict=True)]
    assert len(set(ends)) == 1


def test_wide_characters_count_twice() -> None:
    first, second = columns([["日本", "1"], ["abcd", "2"]], align="ll")
    assert first.index("1") == second.index("2") - 2


def test_a_paragraph_keeps_its_words_and_its_equations() -> None:
    text = "must be better by a one-sided exact test, at the level of this decision (p = 1.8e-153)."
    for width, indent in itertools.product(range(30, 90), (0, 4)):
        lines = paragraph(text, width=width, indent=indent)
        assert " ".join(" ".join(lines).split()) == text
        assert all(line == line.rstrip() and len(line) <= width for line in lines)
        assert any("(p = 1.8e-153)" in line for line in lines)
