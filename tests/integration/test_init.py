"""What ``perennial init`` writes runs as its README says."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from perennial.errors import ConfigError
from perennial.starter import PROJECT, next_steps, write_project
from support.pages import run_page

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
FILES = {
    ".gitignore",
    "README.md",
    "check_data.py",
    "conf/experiment/churn.yaml",
    "make_data.py",
    "model.py",
}


def test_init_writes_the_project_and_nothing_over_another(
    verb: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, told, _ = verb("init", "mine")
    assert code == 0
    assert "cd mine" in told
    assert "experiment=churn" in told
    folder = tmp_path / "mine"
    written = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert written == FILES
    for path in folder.rglob("*"):
        path.is_file() and path.write_text("mine")
    (folder / "model.py").unlink()
    code, _, errors = verb("init", "mine")
    assert (code, "there already" in errors) == (1, True)
    assert not (folder / "model.py").exists()
    assert (folder / "README.md").read_text() == "mine"
    (tmp_path / "file").write_text("")
    for arguments, words in (
        (("file",), "is a file"),
        (("a", "b"), "one folder"),
        (("--forec",), "one folder"),
    ):
        code, _, errors = verb("init", *arguments)
        assert (code, words in errors) == (1, True), errors


def test_init_takes_a_folder_that_has_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("kept")
    monkeypatch.chdir(tmp_path)
    assert len(write_project(Path())) == len(FILES)
    assert (tmp_path / "notes.txt").read_text() == "kept"
    assert "cd " not in next_steps(Path())
    with pytest.raises(ConfigError, match="there already"):
        write_project(tmp_path)


def test_an_experiment_that_is_not_there_is_told_with_the_nearest(
    verb: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    write_project(tmp_path)
    code, _, errors = verb("train", "--config-dir", "conf", "experiment=chrn")
    assert (code, "did you mean experiment=churn?" in errors) == (1, True), errors
    code, shown, _ = verb("train", "--config-dir", "conf", "--help")
    assert code == 0
    assert re.search(r"churn +perennial train --config-dir conf", shown), shown


def test_the_data_check_tells_what_is_wrong() -> None:
    spec = importlib.util.spec_from_file_location("check_data", PROJECT / "check_data.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    good = pd.DataFrame(
        {
            "customer": ["a", "b"],
            "months": [1.0, 2.0],
            "euros": [3.0, 4.0],
            "calls": [0, 1],
            "plan": [0, 1],
            "country": ["at", "be"],
            "leaves": ["yes", "no"],
        }
    )
    assert module.problems(good) == []
    for changed, words in (
        (good.drop(columns="euros"), "euros is missing"),
        (good.assign(months=[1.0, None]), "months is empty in 1 rows"),
        (good.assign(plan=[0, 2]), "plan leaves 0 to 1"),
        (good.assign(customer="a"), "listed twice"),
        (good.assign(leaves="yes"), "100% of the customers leave"),
    ):
        assert [words in one for one in module.problems(changed)] == [True]


@pytest.mark.slow
def test_the_project_runs_as_its_readme_says(tmp_path: Path) -> None:
    write_project(tmp_path)
    assert run_page((tmp_path / "README.md").read_text(), tmp_path) == 3
    page = next(tmp_path.glob("outputs/*/*/report.html"))
    assert "churn@2" in page.read_text()
