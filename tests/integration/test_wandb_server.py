"""The real W&B client against a local stand-in server, each case in its own process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[1] / "support" / "wandb_server.py"
_SPEC = importlib.util.spec_from_file_location("wandb_server", _PATH)
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

SCRIPT = """
import json, sys
from pathlib import Path
from perennial.tracking.wandb import WandbTracker
folder = Path(sys.argv[1])
model = folder / "model.bin"
model.write_bytes(b"weights")
tracker = WandbTracker(mode=sys.argv[2] if len(sys.argv) > 2 else None)
seen = []
for turn in range(2):
    tracker.start(
        name=f"cycle-{turn}", group="digits", job_type="retrain", folder=folder / "runs",
        config={"seed": turn, "registry": {"url": "postgresql://ann:hunter2@db/r"}}, tags=["a"],
    )
    tracker.logger("bootstrap/").log_metrics({"loss": 0.25}, step=7)
    tracker.logger().log_metrics({"loss": 0.5}, step=3)
    tracker.summary({"new/accuracy": 0.875, "decision/verdict": "promoted"})
    for name in ("digits-model", "digits report"):
        tracker.artifact(name=name, kind="model", files={"model.bin": model},
                         aliases=["candidate", "champion"], metadata={"token": "hunter2"})
    tracker.artifact(name="gone", kind="model", files={"x": folder / "gone"}, aliases=[],
                     metadata={})
    seen.append(tracker.identity())
    tracker.finish(0)
    tracker.finish(1)
print("SEEN" + json.dumps(seen))
"""


def _environment(folder, **more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and k != "NETRC"}
    places = {f"WANDB_{name}_DIR": str(folder / name) for name in ("CONFIG", "CACHE", "DATA")}
    return {**kept, **places, "HOME": str(folder), "NETRC": str(folder / "netrc"), **more}


def _run(folder, *arguments, **more):
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=_environment(folder, **more), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    return json.loads(done.stdout.split("SEEN")[1]), done.stderr


def _wandb(folder, *arguments, **more):
    done = subprocess.run(
        [sys.executable, "-m", "wandb", *arguments], cwd=folder, env=_environment(folder, **more),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _check(server, run, seed):
    assert server.config(run)["seed"] == seed
    assert server.config(run)["registry"] == {"url": "postgresql://ann:***@db/r"}
    assert server.runs[run]["jobType"] == "retrain"
    lines = server.history(run)
    assert any(x.get("bootstrap/loss") == 0.25 and x["trainer/global_step"] == 7 for x in lines)
    assert any(x.get("loss") == 0.5 and x["trainer/global_step"] == 3 for x in lines)
    assert server.summary(run)["new/accuracy"] == 0.875
    assert server.summary(run)["decision/verdict"] == "promoted"
    assert server.exit_codes[run] == 0


def _check_artifacts(artifacts):
    assert {a["artifactCollectionName"] for a in artifacts} == {"digits-model", "digits-report"}
    for artifact in artifacts:
        assert artifact["committed"]
        assert {"candidate", "champion"} <= {x["alias"] for x in artifact["aliases"]}
        assert json.loads(artifact["metadata"]) == {"token": "***"}


@pytest.mark.slow
def test_online_without_being_told_where_there_is_a_key(tmp_path):
    with _MODULE.WandbServer() as server:
        seen, errors = _run(tmp_path, WANDB_BASE_URL=server.url, WANDB_API_KEY="k" * 40)
        assert len({x["run_id"] for x in seen}) == 2
        for seed, identity in enumerate(seen):
            _check(server, identity["run_id"], seed)
            assert identity["url"].startswith(server.url)
        _check_artifacts(server.artifacts)
        assert errors.count("did not take the artifact gone") == 2
        assert b"hunter2" not in b"".join(server.uploads.values())


@pytest.mark.slow
def test_offline_without_a_key_is_read_back_and_synced(tmp_path):
    seen, _ = _run(tmp_path)
    assert len({x["run_id"] for x in seen}) == 2
    for identity in seen:
        assert identity["url"] is None
        assert Path(identity["directory"]).is_relative_to(tmp_path / "runs")
    found = json.loads(
        _wandb(tmp_path, "leet", "inspect", "--summary", "--json", seen[0]["directory"])
    )
    assert "0.875" in json.dumps(found)
    assert "hunter2" not in json.dumps(found)
    with _MODULE.WandbServer() as server:
        key = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40}
        _wandb(tmp_path, "sync", seen[1]["directory"], **key)
        _check(server, seen[1]["run_id"], 1)
        _check_artifacts(server.artifacts)


@pytest.mark.slow
def test_an_unreachable_server_falls_back_to_offline(tmp_path):
    more = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "k" * 40}
    seen, errors = _run(tmp_path, "online", WANDB_INIT_TIMEOUT="3", **more)
    assert all(x["url"] is None and Path(x["directory"]).is_dir() for x in seen)
    assert errors.count("cannot be reached") == 2


DYING = """
import os, signal, sys
from pathlib import Path
from perennial.tracking.wandb import WandbTracker
tracker = WandbTracker(finish_seconds=4)
tracker.start(name="c", group="g", job_type="retrain", folder=Path(sys.argv[1]), config={})
tracker.logger().log_metrics({"loss": 0.5}, step=3)
print("READY", flush=True)
sys.stdin.readline()
tracker.finish(0)
print("DONE" + str(tracker.identity()["directory"]))
"""


@pytest.mark.slow
def test_a_server_that_dies_in_mid_run_does_not_hold_up_the_cycle(tmp_path):
    with _MODULE.WandbServer() as server:
        more = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40}
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", DYING, str(tmp_path)], cwd=tmp_path, text=True,
            env=_environment(tmp_path, **more), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout.readline() == "READY\n"
    out, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    folder = Path(out.split("DONE")[1].strip())
    assert list(folder.glob("*.wandb")), "what was recorded can be synced later"
