"""The recipes for schedulers hand on each exit code; a command of that name stands in for ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import yaml

from support.pages import Block, blocks

PAGE = (Path(__file__).parents[2] / "docs/how-to/schedule.md").read_text()
CODES = [0, 1, 10, 20, 21, 30]


def block(words: str) -> Block:
    (found,) = [one for one in blocks(PAGE) if words in f"{one.title}\n{one.text}"]
    return found


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with commands that note what they are called with and end as they are told."""
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name in ("perennial", "sleep", "sbatch", "systemctl", "python"):
        # the codes are used up one by one, and the last one stays
        (commands / name).write_text(
            "#!/bin/bash\n"
            f'echo "{name} $*" >> "$SITE/calls"\n'
            f'[ {name} = sbatch ] && shift && exec bash "$@"\n'
            f"[ {name} = perennial ] || exit 0\n"
            'code=$(head -n 1 "$SITE/codes")\n'
            '[ "$(wc -l < "$SITE/codes")" -eq 1 ] || sed -i 1d "$SITE/codes"\n'
            "exit $code\n"
        )
        (commands / name).chmod(0o755)
    return tmp_path


def shell(site: Path, text: str, *codes: int, arguments: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and output of a script, while ``perennial`` ends with each code in turn."""
    (site / "codes").write_text("".join(f"{code}\n" for code in codes))
    (site / "calls").unlink(missing_ok=True)
    path = f"{site / '.venv' / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", text, "recipe", *arguments],
        cwd=site,
        env={**os.environ, "PATH": path, "SITE": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def calls(site: Path) -> list[str]:
    return (site / "calls").read_text().splitlines()


@pytest.mark.parametrize("code", CODES)
def test_cron(site: Path, code: int) -> None:
    (line,) = [one for one in block("flock").text.splitlines() if one[0] != "#"]
    # as cron does: five fields of time, and an escaped percent sign is a plain one
    command = line.split(maxsplit=5)[5].replace("/srv/churn", str(site)).replace("\\%", "%")
    assert shell(site, command, code) == (code, "")
    (called,) = calls(site)
    assert re.search(r"experiment=churn data\.new=data/week_\d\d\.csv notify=webhook$", called)
    assert (site / "retrain.log").exists()


@pytest.mark.parametrize("code", CODES)
def test_slurm(site: Path, code: int) -> None:
    (site / "retrain.sh").write_text(block("retrain.sh\n").text.replace("/shared/churn", str(site)))
    assert shell(site, block("sbatch --wait").text, code) == (0, f"verdict: {code}\n")
    submitted, called = calls(site)
    assert submitted == "sbatch --wait retrain.sh data/week_42.parquet"
    assert called.endswith("experiment=churn data.new=data/week_42.parquet")


def job() -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(block("retrain.yaml\n").text)
    assert (settings["kind"], settings["spec"]["concurrencyPolicy"]) == ("CronJob", "Forbid")
    found: dict[str, Any] = settings["spec"]["jobTemplate"]["spec"]
    return found


@pytest.mark.parametrize(
    ("code", "state"),
    [(0, "done"), (10, "done"), (20, "failed"), (21, "done"), (30, "failed"), (1, "again")],
)
def test_kubernetes(site: Path, code: int, state: str) -> None:
    pod = job()["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what Kubernetes wants beside a pod failure policy
    (container,) = pod["containers"]
    assert container["command"] == ["bash", "-c"]
    ended, _ = shell(site, container["args"][0], code)
    (rule, _) = job()["podFailurePolicy"]["rules"]
    fatal = rule["onExitCodes"]
    assert (rule["action"], fatal["operator"]) == ("FailJob", "In")
    assert fatal["containerName"] == container["name"]
    assert state == ("done" if ended == 0 else "failed" if ended in fatal["values"] else "again")
    (called,) = calls(site)
    assert called.endswith("experiment=churn data.new=data notify=webhook")


def test_a_pod_that_is_moved_hands_the_signal_on(site: Path) -> None:
    (site / ".venv/bin/perennial").write_text(
        "#!/bin/bash\ntrap 'echo stopped >> \"$SITE/calls\"; exit 1' TERM\n"
        'echo started >> "$SITE/calls"\nwhile true; do /bin/sleep 0.05; done\n'
    )
    path = f"{site / '.venv' / 'bin'}:{os.environ['PATH']}"
    script = job()["template"]["spec"]["containers"][0]["args"][0]
    environment = {**os.environ, "PATH": path, "SITE": str(site)}
    pod = subprocess.Popen(["bash", "-c", script], cwd=site, env=environment)
    while not (site / "calls").exists():
        assert pod.poll() is None
    pod.terminate()
    assert pod.wait(timeout=60) == 1
    assert calls(site) == ["started", "stopped"]


class Operator:
    """What the recipe asks of Airflow's operator: a shell, and codes that are shown as skipped."""

    made: ClassVar[dict[str, Operator]] = {}

    def __init__(
        self,
        *,
        task_id: str,
        bash_command: str,
        cwd: str | None = None,
        skip_on_exit_code: int | list[int] = 99,
        retries: int = 0,
    ) -> None:
        codes = [skip_on_exit_code] if isinstance(skip_on_exit_code, int) else skip_on_exit_code
        self.command, self.skips, self.retries = bash_command, codes, retries
        self.after: Operator | None = None
        self.made[task_id] = self

    def __rshift__(self, other: Operator) -> Operator:
        other.after = self
        return other

    def run(self, site: Path, *codes: int) -> str:
        # again as long as it fails, with what is left of the codes
        left = "".join(f"{code}\n" for code in codes)
        for _ in range(self.retries + 1):
            command = self.command.replace("{{ ds }}", "2026-11-23")
            code, _ = shell(site, command, *map(int, left.split()))
            left = (site / "codes").read_text()
            if code == 0 or code in self.skips:
                return "skipped" if code else "success"
        return "failed"


class Dag:
    def __init__(self, name: str, **settings: Any) -> None:
        assert settings["max_active_runs"] == 1

    def __enter__(self) -> Dag:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is kept open."""


@pytest.fixture
def dag(monkeypatch: pytest.MonkeyPatch) -> dict[str, Operator]:
    names = ("", ".sdk", ".providers", ".providers.standard", ".providers.standard.operators")
    for name in (*names, ".providers.standard.operators.bash"):
        monkeypatch.setitem(sys.modules, f"airflow{name}", ModuleType(f"airflow{name}"))
    monkeypatch.setattr(sys.modules["airflow.sdk"], "DAG", Dag, raising=False)
    bash = sys.modules["airflow.providers.standard.operators.bash"]
    monkeypatch.setattr(bash, "BashOperator", Operator, raising=False)
    monkeypatch.setattr(Operator, "made", {})
    exec(compile(block("dags/churn.py").text, "churn.py", "exec"), {})
    return Operator.made


@pytest.mark.parametrize(
    ("codes", "state", "tries"),
    [
        ([0], "success", 1),
        ([10], "skipped", 1),
        # what was rejected is decided by the time of another try
        ([20, 10], "failed", 1),
        ([21, 10], "skipped", 1),
        ([30], "failed", 1),
        ([1], "failed", 3),
        ([1, 0], "success", 2),
        ([1, 20, 10], "failed", 2),
    ],
)
def test_airflow(
    dag: dict[str, Operator], site: Path, codes: list[int], state: str, tries: int
) -> None:
    assert dag["retrain"].run(site, *codes) == state
    trained = [call for call in calls(site) if call.startswith("perennial")]
    assert len(trained) == tries
    assert trained[0].endswith("experiment=churn data.new=data/2026-11-23.csv")


def test_airflow_checks_first_and_deploys_last(dag: dict[str, Operator], site: Path) -> None:
    assert dag["retrain"].after is dag["check"]
    assert dag["deploy"].after is dag["retrain"]
    assert dag["deploy"].run(site, 0) == dag["check"].run(site, 0) == "success"
