"""What launchers get, which device a job sees, and what a plain multirun says at its end."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from hydra_plugins.perennial_sweeper import process
from hydra_plugins.perennial_sweeper._discreet import discreet, unread
from hydra_plugins.perennial_sweeper._plain import tell
from hydra_plugins.perennial_sweeper._reading import for_trials
from support.trials import finished

SECRETS = ("hunter9", "t0ken")


def config(folder: Path) -> Any:
    return OmegaConf.create(
        {
            "model_name": "digits",
            "notify": {"url": "https://hooks/t0ken"},
            "registry": {"url": "postgresql://a:hunter9@b/c"},
            "sweep": {"storage": "postgresql://a@b/t0ken"},
            "hydra": {
                "overrides": {"task": ["notify.url=https://hooks/t0ken"], "hydra": ["x=1"]},
                "job": {"override_dirname": "notify.url=https://hooks/t0ken"},
                "sweep": {"dir": f"{folder}/${{model_name}}"},
                "launcher": {"submitit_folder": "${hydra.sweep.dir}/.submitit/%j"},
            },
        }
    )


def test_a_launcher_is_told_no_secret(tmp_path: Path) -> None:
    given = config(tmp_path)
    told = discreet(given)
    assert not [secret for secret in SECRETS if secret.encode() in pickle.dumps(told)]
    assert told.hydra.sweep.dir == f"{tmp_path}/digits"
    assert told.hydra.overrides.hydra == ["x=1"]
    assert given.notify.url == "https://hooks/t0ken"
    words = ["seed=1", "notify=webhook", "++notify.url=x", "notify.when=[failed]", "notifyer=1"]
    assert for_trials(words) == ["seed=1", "notifyer=1"]


def test_what_submitit_writes_is_private_and_goes(tmp_path: Path) -> None:
    folder = tmp_path / "digits" / ".submitit"
    with unread(config(tmp_path)):
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "1").mkdir()
        (folder / "1" / "1_submitted.pkl").write_bytes(b"hunter9")
        (folder / "1" / "1_0_log.out").write_text("done")
    assert [path.name for path in folder.rglob("*.*")] == ["1_0_log.out"]


class Device:
    """A process that ends at its third look."""

    seen: list[str | None] = []  # noqa: RUF012

    def __init__(self, device: str | None) -> None:
        self.seen.append(device)
        self.looks = 0

    def poll(self) -> int | None:
        self.looks += 1
        return 0 if self.looks > 2 else None


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("4,7", ["4", "7", "4", "7"]), ("3", [None] * 4), ("", [None] * 4)],
)
def test_jobs_are_spread_over_devices(
    monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[str | None]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(Device, "seen", [])
    starts: Any = [Device] * 4
    process.run_all(starts, jobs=4)
    assert Device.seen == expected


def test_a_job_sees_its_device_alone(tmp_path: Path) -> None:
    told = process.start(["printenv", "CUDA_VISIBLE_DEVICES"], tmp_path, "7")
    assert told.wait() == 0
    assert (tmp_path / process.OUTPUT).read_text() == "7\n"


def test_a_repeated_multirun_ranks_what_was_decided_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = []
    for number, (share, status) in enumerate([(0.9, "skipped"), (0.2, "inconclusive")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = {**finished({"method.replay.new_fraction": share}), "status": status}
        (folder / "result.json").write_text(json.dumps(result))
        hydra = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(folder)}}})
        jobs.append(JobReturn(overrides=[f"share={share}"], hydra_cfg=hydra))
    tell(jobs)
    assert "Best of 2 trials on validation rows: digits@0.9" in capsys.readouterr().out
