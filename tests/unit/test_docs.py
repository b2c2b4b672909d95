"""The examples in the documentation give what they say."""

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", sorted(page.name for page in DOCS.glob("*.md")))
def test_examples_of_the_docs(page: str) -> None:
    assert doctest.testfile(str(DOCS / page), module_relative=False).failed == 0
