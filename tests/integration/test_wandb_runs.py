"""What arrives in W&B of real cycles: documented keys, the same offline as online, and aliases."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.wandb_server import WandbServer

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CLI = "from perennial.cli import main; main()"
SETTINGS = (
    "method=[replay,ewc,lwf]", "trainer.max_steps=60", "trainer.validate_every=20",
    "trainer.log_every=10", "trainer.accelerator=cpu",
)  # fmt: skip
# what differs between two runs of one command: times, memory, and names that are drawn
TIMES = re.compile(r"^_|^cost/.*(_seconds|_bytes)$|^cost/profile/|latency|^tables/")


def environment(folder: Path, home: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and k != "NETRC"}
    places = {f"WANDB_{name}_DIR": str(folder / name) for name in ("CONFIG", "CACHE", "DATA")}
    return {
        **kept, **places, "HOME": str(folder), "NETRC": str(folder / "netrc"),
        "PERENNIAL_HOME": str(home), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}", **more,
    }  # fmt: skip


def call(folder: Path, *command: str, code: int = 0, **more: str) -> str:
    home = Path(more.pop("home", folder / "home"))
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment(folder, home, **more), text=True,
        capture_output=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def train(folder: Path, *more: str, code: int, **variables: str) -> dict[str, Any]:
    run_folder = folder / "out"
    call(
        folder, str(ROOT / "train.py"), *SETTINGS, f"hydra.run.dir={run_folder}", *more,
        code=code, **variables,
    )  # fmt: skip
    found: dict[str, Any] = json.loads((run_folder / "result.json").read_text())
    return found


def key(server: Any) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40}


def documented(*sections: str) -> list[re.Pattern[str]]:
    """Keys of the reference, ``<name>`` standing for anything, and ``*`` marking what may lack."""
    text = (ROOT / "docs" / "reference" / "tracking.md").read_text()
    parts = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    keys = [k for one in sections for k in re.findall(r"^\| `([^`]+)`", parts[one], re.MULTILINE)]
    assert keys
    return [re.compile(re.sub(r"<[^>]+>", r".+", re.escape(k).replace("\\<", "<"))) for k in keys]


def check_documented(found: set[str], patterns: list[re.Pattern[str]]) -> None:
    own = {one for one in found if not one.startswith("_")}
    assert not [k for k in own if not any(p.fullmatch(k) for p in patterns)], "not documented"
    assert not [p.pattern for p in patterns if not any(map(p.fullmatch, own))], "not logged"


def told(server: Any, run: str) -> dict[str, Any]:
    """All that arrived of a run, without what differs between two runs of one command."""
    lines = [{k: v for k, v in one.items() if k[:1] != "_"} for one in server.history(run)]
    config = {k: v for k, v in server.config(run).items() if k not in ("_wandb", "registry")}
    return {
        "config": config,
        "history": [one for one in lines if one and not any("tables/" in k for k in one)],
        "summary": {k: v for k, v in server.summary(run).items() if not TIMES.search(k)},
        "tables": sorted(k for k in server.summary(run) if k.startswith("tables/")),
        **{name: server.runs[run].get(name) for name in ("tags", "jobType", "groupName")},
        "used": [name for name, _ in server.versions(server.used[run])],
        "logged": sorted(
            re.sub("^run-.*tables", "tables", name).partition("-")[0]
            for name, _ in server.versions(server.logged[run])
        ),
        "aliases": {
            name: sorted(aliases)
            for name, aliases in server.aliases.items()
            if not name.startswith("run-")
        },
        "exit": server.exit_codes[run],
    }


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str, dict[str, Any]]:
    """One cycle that tells a server: what it has, the run, and the result."""
    folder = tmp_path_factory.mktemp("online")
    with WandbServer() as server:
        result = train(folder, code=21, **key(server))
    return server, str(result["tracking"]["run_id"]), result


def test_every_key_is_documented_and_every_documented_key_is_there(online: Any) -> None:
    server, run, _ = online
    lines = server.history(run)
    tables = {k for k in server.summary(run) if k.startswith("tables/")}
    check_documented({k for line in lines for k in line} - tables, documented("While a run trains"))
    # W&B puts the last value of each key of the history into the summary, too
    trained = {k for line in lines for k in line}
    own = {k for k in server.summary(run) if k not in trained or k in tables}
    check_documented(own, documented("At its end", "Tables"))


def test_the_summary_is_the_result(online: Any) -> None:
    server, run, result = online
    found = server.summary(run)
    assert found["decision/verdict"] == result["decision"]["verdict"] == "inconclusive"
    assert found["decision/applied"] is False
    for check in result["decision"]["checks"]:
        if not check["name"].startswith("slice/"):
            assert found[f"decision/{check['name']}/outcome"] == check["outcome"]
            assert found.get(f"decision/{check['name']}/estimate") == check["estimate"]
    for who in ("champion", "candidate"):
        assert found[f"{who}/id"] == result[who]["id"]
        for part in ("new", "history"):
            value = result["metrics"][who][part]["accuracy"]
            assert found[f"metrics/{who}/{part}/accuracy"] == pytest.approx(value)
    change = found["retention/candidate"] - found["retention/champion"]
    assert found["retention/change"] == pytest.approx(change)
    assert found["cycle/id"] == result["cycle_id"]
    assert found["cost/optimizer_steps"] == 60
    assert {"replay", "ewc", "lwf", "inconclusive"} == set(server.runs[run]["tags"])


def test_lineage_is_one_champion_used_and_candidate_and_report_logged(online: Any) -> None:
    server, run, result = online
    (used,) = server.versions(server.used[run])
    assert used == ("digits", server.called("digits")["version-1"])
    logged = server.versions(server.logged[run])
    assert ("digits", server.called("digits")["version-2"]) in logged
    assert ("digits-report", server.called("digits-report")["version-2"]) in logged
    assert server.called("digits")["candidate"] == server.called("digits")["version-2"]
    assert "champion" not in server.called("digits")
    kept = [json.loads(a["metadata"]) for a in server.artifacts if a["artifactTypeName"] == "model"]
    assert {one["id"] for one in kept} == {result[who]["id"] for who in ("champion", "candidate")}


def test_tables_hold_no_feature_of_a_row(online: Any) -> None:
    server, *_ = online
    found = [
        json.loads(content) for content in server.uploads.values()
        if content.startswith(b'{"columns"')
    ]  # fmt: skip
    columns = {tuple(one["columns"]): one["data"] for one in found}
    flips = columns["id", "rows", "holdout", "change", "label", "champion", "candidate"]
    assert flips
    assert all(row[3] in ("lost", "gained") and row[5] != row[6] for row in flips)
    slices = columns["rows", "column", "value", "n", "champion", "candidate", "change"]
    assert sum(row[3] for row in slices if row[0] == "new") == 600


def test_an_offline_run_syncs_to_the_same_result(online: Any, tmp_path: Path) -> None:
    there, run, _ = online
    result = train(tmp_path, code=21)
    assert result["tracking"]["url"] is None
    own = str(result["tracking"]["run_id"])
    with WandbServer() as server:
        call(tmp_path, "-m", "wandb", "sync", result["tracking"]["directory"], **key(server))
        found = told(server, own)
    expected = told(there, run)
    for name, value in expected.items():
        assert found[name] == value, name


VERB = ("-c", CLI, "registry", "sync")


@pytest.fixture(scope="module")
def undecided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a lineage with a champion, and a candidate that was not promoted."""
    folder = tmp_path_factory.mktemp("undecided")
    train(folder, "tracking=none", "seed=1", code=21)
    return folder


def test_registry_sync_brings_versions_and_aliases_up_to_date(
    tmp_path: Path, undecided: Path
) -> None:
    train(
        tmp_path, "gate.retention=waived", "gate.slices=null", "trainer.max_steps=400",
        "tracking=none", "method=none", code=0,
    )  # fmt: skip
    with WandbServer() as server:
        first = call(tmp_path, *VERB, **key(server))
        assert "digits@1: uploaded" in first
        assert "digits@2: now candidate, champion" in first
        called = server.called("digits")
        assert called["champion"] == called["candidate"] == called["version-2"]
        assert called["previous"] == called["version-1"]

        writes = server.writes
        assert call(tmp_path, *VERB, "digits", **key(server)) == "digits: W&B is up to date\n"
        assert server.writes == writes

        call(tmp_path, "-c", CLI, "registry", "rollback", "digits")
        assert "digits@1: now champion" in call(tmp_path, *VERB, **key(server))
        called = server.called("digits")
        assert called["champion"] == called["version-1"]

        assert "of another registry" in call(undecided, *VERB, code=1, **key(server))


def test_registry_sync_takes_away_an_alias_that_nothing_has(undecided: Path) -> None:
    with WandbServer() as server:
        call(undecided, *VERB, **key(server))
        server.aliases["digits"]["previous"] = server.aliases["digits"]["version-2"]
        assert call(undecided, *VERB, **key(server)) == "digits@2: no longer previous\n"
        assert set(server.called("digits")) == {
            "version-1", "version-2", "candidate", "champion", "latest",
        }  # fmt: skip


def test_registry_sync_without_key_or_network_says_so(undecided: Path) -> None:
    assert "wandb login" in call(undecided, *VERB, code=1)
    gone = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "k" * 40}
    assert "check the network" in call(undecided, *VERB, code=1, **gone)


def test_each_job_of_many_is_a_run_of_its_own(tmp_path: Path) -> None:
    with WandbServer() as server:
        call(
            tmp_path, str(ROOT / "train.py"), "-m", *SETTINGS, "seed=0,1,2",
            f"hydra.sweep.dir={tmp_path / 'many'}", **key(server),
        )  # fmt: skip
        results = [json.loads(p.read_text()) for p in tmp_path.glob("many/*/result.json")]
        own = {one["tracking"]["run_id"]: one for one in results}
        assert len(own) == len(results) == 3
        assert set(server.runs) == set(own)
        for run, result in own.items():
            assert server.config(run)["seed"] in (0, 1, 2)
            assert server.summary(run)["candidate/id"] == result["candidate"]["id"]
            assert server.summary(run)["decision/applied"] is False
            assert server.runs[run]["jobType"] == "trial"
            steps = [one["trainer/global_step"] for one in server.history(run)]
            assert max(steps) <= 60  # none goes on in the run before it
            assert server.exit_codes[run] == 0
        assert {server.config(run)["seed"] for run in own} == {0, 1, 2}
        assert len({result["candidate"]["id"] for result in results}) == 3


def test_an_evaluation_is_a_run_that_used_the_version(undecided: Path) -> None:
    with WandbServer() as server:
        told = call(
            undecided, "-c", CLI, "evaluate", "tracking=wandb", "ref=digits@2", "accelerator=cpu",
            **key(server),
        )  # fmt: skip
        (run,) = server.runs
        assert server.runs[run]["jobType"] == "evaluate"
        assert (server.runs[run]["groupName"], server.runs[run]["tags"]) == ("digits", ["evaluate"])
        found = server.summary(run)
        check_documented(set(found), documented("Of an evaluation"))
        assert found["evaluation/version"] == "digits@2"
        parts = [found[f"evaluation/{p}/n"] for p in ("trained_on", "never_trained_on")]
        assert found["evaluation/all/n"] == sum(parts) > 0
        printed = re.search(r"^all\s+[\d,]+\s+([\d.]+)%", told, re.MULTILINE)
        assert printed is not None, told
        shown = 100 * found["evaluation/all/accuracy"]
        assert shown == pytest.approx(float(printed[1]), abs=0.051)
        assert [name for name, _ in server.versions(server.used[run])] == ["digits"]
        assert server.exit_codes[run] == 0
        # nothing to score: the run has failed
        call(
            undecided, "-c", CLI, "evaluate", "tracking=wandb", "data=files",
            "data.new=nowhere.csv", "data.label=x", code=30, **key(server),
        )  # fmt: skip
        assert sorted(server.exit_codes.values()) == [0, 1]
