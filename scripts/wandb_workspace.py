"""A saved W&B view for comparing cycles: frontier, learning curves, cost, and a table of verdicts.

    pip install "perennial[workspace]"
    python scripts/wandb_workspace.py --entity TEAM --project perennial --model fraud

Each call saves a new view and prints its address; a view that is there stays as it is. The keys are
those of docs/reference/tracking.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

TABLE = (
    "run:displayName",
    "run:jobType",
    "run:tags",
    "summary:decision/verdict",
    "summary:decision/applied",
    "summary:decision/against",
    "summary:champion/id",
    "summary:candidate/id",
    "summary:plasticity/change",
    "summary:retention/change",
    "summary:retention/candidate",
    "summary:plasticity/candidate",
    "summary:forgetting/forgetting",
    "summary:cost/wall_seconds",
)
STEP = "trainer/global_step"


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the view, save it, print where it is."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--entity", required=True, help="team or user")
    parser.add_argument("--project", default="perennial", help="the tracking.project of the runs")
    parser.add_argument("--model", help="only runs of this model_name")
    parser.add_argument("--name", default="Perennial", help="of the view")
    given = parser.parse_args(arguments)
    view = workspace(
        entity=given.entity, project=given.project, name=given.name, model=given.model
    ).save()
    print(view.url)


def workspace(*, entity: str, project: str, name: str, model: str | None = None) -> ws.Workspace:
    """The view, not saved yet.

    Args:
        entity: Team or user.
        project: W&B project.
        name: Of the view.
        model: Lineage whose runs are shown; None shows all.
    """
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            section("Retention and plasticity", frontier()),
            section("Verdicts", verdicts()),
            section("Learning curves", curves()),
            section("Cost", cost()),
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=50),
        runset_settings=ws.RunsetSettings(
            filters="" if model is None else expr.And(expr.Metric("Group") == model),
            pinned_columns=list(TABLE),
        ),
    )


def section(name: str, panels: list[wr.Panel]) -> ws.Section:
    """A section that is open."""
    return ws.Section(name=name, panels=panels, is_open=True)


def frontier() -> list[wr.Panel]:
    """The candidates, and what they gained over their champion, retention against plasticity."""
    return [
        wr.ScatterPlot(
            title=title,
            x=wr.SummaryMetric(f"plasticity/{what}"),
            y=wr.SummaryMetric(f"retention/{what}"),
        )
        for title, what in (
            ("Score on new and on old rows", "candidate"),
            ("Change on new and on old rows", "change"),
        )
    ]


def verdicts() -> list[wr.Panel]:
    """Every check of every run that is shown, the parts of the rows, and the rows that flipped."""
    return [
        wr.WeavePanelSummaryTable(table_name=f"tables/{name}")
        for name in ("checks", "slices", "flips")
    ]


def curves() -> list[wr.Panel]:
    """Scores on validation rows and the loss, by optimizer step."""
    return [
        wr.LinePlot(title=title, x=STEP, y=[key])
        for title, key in (
            ("New rows", "validation/new"),
            ("Old rows", "validation/history"),
            ("Both", "validation/combined"),
            ("Training loss", "training/loss"),
        )
    ]


def cost() -> list[wr.Panel]:
    """What a cycle took."""
    return [
        wr.BarPlot(title=title, metrics=[key], orientation="h")
        for title, key in (
            ("Seconds", "cost/wall_seconds"),
            ("Peak memory, bytes", "cost/peak_memory_bytes"),
            ("Rows trained on", "cost/train_rows"),
        )
    ]


if __name__ == "__main__":
    main()
