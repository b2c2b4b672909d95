"""Comparing as a user does it: real cycles, a made sweep, what is torn, and what is misspelt."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perennial.promotion.registry import Registry

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import compare_cost

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sweep(home: Path, tmp_path: Path) -> Path:
    """Six made trials with their versions, where ``verb`` finds them."""
    compare_cost.make(tmp_path, 6, stored=True)
    return tmp_path / "multirun" / "sweep"


def found(verb: Verb, *arguments: str) -> dict[str, Any]:
    code, out, errors = verb("compare", *arguments, "--json")
    assert code == 0, errors
    value: dict[str, Any] = json.loads(out)
    return value


def test_real_cycles_are_paired_as_the_gate_paired_them(
    run: Callable[..., dict[str, Any]], verb: Verb, tmp_path: Path
) -> None:
    quick = ("trainer.max_steps=60", "trainer.validate_every=30")
    one = run(*quick, "promote=false")
    two = run(*quick, "promote=false", "seed=1")
    for place, done in (("a", one), ("b", two)):
        shutil.copytree(done["folder"], tmp_path / "outputs" / place)
    told = found(verb, "--against", "digits@1")
    assert {row["version"] for row in told["runs"]} == {"digits@2", "digits@3"}
    for done in (one, two):
        row = next(r for r in told["runs"] if r["version"] == done["candidate"]["id"])
        for check, part in (("improvement", "new"), ("retention", "history")):
            judged = next(c for c in done["decision"]["checks"] if c["name"] == check)
            paired = row["difference"][part]
            assert paired["value"] == pytest.approx(judged["estimate"])
            if done is one:  # the second decision is charged for the first: wider bounds
                assert paired["interval"] == pytest.approx(judged["interval"])
        level = row["levels"]["new"]
        assert level["value"] == pytest.approx(done["metrics"]["candidate"]["new"]["accuracy"])
        low, high = level["interval"]
        assert low <= level["value"] < high
    # of the two against each other: the difference of the two levels, on the same rows
    told = found(verb, "digits@2", "digits@3", "outputs/a", "--against", "digits@2")
    assert len(told["runs"]) == 2  # outputs/a is digits@2
    by_id = {row["version"]: row for row in told["runs"]}
    apart = (
        by_id["digits@3"]["levels"]["new"]["value"] - by_id["digits@2"]["levels"]["new"]["value"]
    )
    assert by_id["digits@3"]["difference"]["new"]["value"] == pytest.approx(apart)
    assert by_id["digits@2"]["difference"] == {}
    assert {key for row in told["runs"] for key in row["settings"]} == {"seed"}
    # the founder stands among its lineage, without scores of its own
    whole = found(verb, "digits")
    assert [row["verdict"] for row in whole["runs"] if row["version"] == "digits@1"] == ["founded"]
    page = (tmp_path / "compare.html").read_text()
    assert page.count("<polyline") == 4
    assert "Paired difference from" in page


def test_a_sweep_from_its_folder(sweep: Path, verb: Verb, tmp_path: Path) -> None:
    code, table, _ = verb("compare", str(sweep), "--sort", "cost.wall_seconds")
    assert code == 0
    lines = table.splitlines()
    assert lines[0].split()[:6] == ["run", "verdict", "new", "history", "new,", "paired"]
    assert [line.split()[0] for line in lines[1:7]] == [f"made@{i}" for i in (7, 6, 5, 4, 3, 2)]
    assert "reference" in lines[1]
    assert "the champion of all" not in table  # it has other figures in each of these
    told = found(verb, str(sweep))
    assert set(told["runs"][0]["settings"]) == {"method.replay.new_fraction", "trainer.max_steps"}
    kept = found(verb, str(sweep), "--where", "replay.new_fraction>0.6 and trial=true")
    assert {row["version"] for row in kept["runs"]} == {"made@5", "made@6", "made@7"}
    json_file = tmp_path / "out.json"
    assert verb("compare", str(sweep), "--json", str(json_file))[0] == 0
    assert json.loads(json_file.read_text()) == told


def test_copies_and_what_is_torn(sweep: Path, verb: Verb) -> None:
    (sweep / "2" / "result.json").write_text("{")
    (sweep / "3" / "result.json").unlink()
    shutil.copytree(sweep / "4", sweep / "again")
    told = found(verb)
    assert {row["version"] for row in told["runs"]} == {f"made@{i}" for i in (2, 5, 6, 7)}
    assert {one["run"].rsplit("/", 1)[1]: one["why"].split(":")[0] for one in told["unread"]} == {
        "2": "result.json cannot be read",
        "3": "no result.json",
    }
    assert "Copies of runs shown that are left out: 1." in told["notes"]
    # the registry has the torn ones whole
    assert len(found(verb, "made")["runs"]) == 7


def test_damaged_predictions_take_away_the_pair_and_no_more(
    sweep: Path, verb: Verb, home: Path
) -> None:
    version = Registry(url=f"sqlite:///{home / 'registry.db'}").version("made@3")
    stored = version.open("predictions/holdouts.parquet")
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-100])
    told = found(verb, str(sweep))
    pairs = {row["version"]: row["difference"] for row in told["runs"]}
    assert pairs["made@3"] == {}
    assert sum(map(bool, pairs.values())) == 4
    assert any(note.startswith("1 of 5 have no paired difference") for note in told["notes"])
    assert all(row["levels"]["new"]["interval"] for row in told["runs"])


def test_another_registrys_version_of_the_same_name_is_not_taken(sweep: Path, verb: Verb) -> None:
    place = sweep / "2" / "result.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"cycle_id": "another"}))
    told = found(verb, str(sweep), "--against", str(sweep / "6"))
    pairs = {row["run"].rsplit("/", 1)[1]: row["difference"] for row in told["runs"]}
    assert pairs["2"] == {}
    assert pairs["3"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "There is no run folder"),
        (("made@99",), "made has no version '99'"),
        (("nobody@1",), "no model named 'nobody'"),
        (("--where", "verdikt=promoted"), "did you mean verdict?"),
        (("--where", "verdict="), "a value after '=' is missing"),
        (("--sort", "wall_second"), "did you mean cost.wall_seconds"),
        (("--against", "multirun"), "names 6 runs"),
        (("--json", "multirun"), "is a folder"),
        (("--whre", "x=1"), "see perennial compare --help"),
    ],
)
def test_a_mistake_is_told(arguments: tuple[str, ...], words: str, sweep: Path, verb: Verb) -> None:
    code, _, errors = verb("compare", *arguments)
    assert (code, words in errors) == (1, True), errors


def test_nothing_to_compare_is_told(verb: Verb) -> None:
    code, _, errors = verb("compare")
    assert (code, "neither outputs/ nor multirun/" in errors) == (1, True)


def test_neither_torch_nor_hydra_composes_anything(sweep: Path, tmp_path: Path, home: Path) -> None:
    code = (
        "import sys; from perennial.verbs.compare import compare_verb; compare_verb([]); "
        "print([name for name in ('torch', 'lightning', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_benchmark_measures_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.json"
    flags = ["compare_cost.py", "--runs", "5", "--rounds", "1", "--json", str(record)]
    monkeypatch.setattr(sys, "argv", flags)
    monkeypatch.setattr(compare_cost, "LIMIT", 1e-9)
    with pytest.raises(SystemExit) as ended:
        compare_cost.main()
    assert ended.value.code == 1  # a bar that is missed is told
    kept = json.loads(record.read_text())
    assert [(row["runs"], row["paired"]) for row in kept["rows"]] == [(5, 0), (5, 4)]
    assert all(bar["value"] > 0 and not bar["passed"] for bar in kept["bars"])
    assert capsys.readouterr().out.count("MISSED") == 2
