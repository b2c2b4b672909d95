"""Weeks of film ratings, a cycle per week; each is ranked before the model sees it.

python benchmarks/films.py [--first 18] [--last 27] [seed=1] ...
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FIRST, LAST, SCORED = 18, 27, 8
TOP = 20
# weeks whose popularity is taken; all of them have gone by before the week that is ranked
SPANS = {"last week": 1, "last four": 4, "all": LAST}


def hits(lists: Sequence[Sequence[str]], items: Sequence[str]) -> float:
    """recall@20: the share of rows whose item is among the first 20 of its list."""
    found = [item in ranked[:TOP] for ranked, item in zip(lists, items, strict=True)]
    return float(np.mean(found))


def popular(items: Sequence[str], weeks: Sequence[int], week: int) -> dict[str, list[str]]:
    """All items by popularity before a week, most popular first, over each of `SPANS`."""
    counts = {
        name: Counter(i for i, w in zip(items, weeks, strict=True) if week - span <= w < week)
        for name, span in SPANS.items()
    }
    return {name: [item for item, _ in count.most_common()] for name, count in counts.items()}


def unrated(ranked: Sequence[str], met: Sequence[set[str]]) -> Iterator[list[str]]:
    """The first 20 for each user, without what that user has rated."""
    for own in met:
        yield [item for item in ranked[: TOP + len(own)] if item not in own][:TOP]


def baselines(path: str, week: int) -> dict[str, float]:
    """recall@20 of popularity, and of popularity without what a user has rated before."""
    from perennial.data.ratings import ratings

    rows = ratings(path=path, week=week, keep=None).to_dict()
    before: dict[str, set[str]] = defaultdict(set)
    met: list[set[str]] = []
    for user, item in zip(rows["user"], rows["next_item"], strict=True):
        met.append(set(before[user]))
        before[user].add(item)
    own = [place for place, at in enumerate(rows["week"]) if at == week]
    items = [rows["next_item"][place] for place in own]
    found = {}
    for name, ranked in popular(rows["next_item"], rows["week"], week).items():
        found[name] = hits([ranked] * len(items), items)
        lists = list(unrated(ranked, [met[place] for place in own]))
        found[f"{name}, unrated"] = hits(lists, items)
    return found


def recommended(model: Any, path: str, week: int, length: int) -> float:
    """recall@20 of a version over a whole week."""
    from perennial.data.ratings import ratings

    rows = ratings(path=path, week=week, length=length).to_dict()
    lists = []
    for start in range(0, len(rows["items"]), 512):
        lists += model.predict({"items": rows["items"][start : start + 512]})
    return hits(lists, rows["next_item"])


def composed(experiment: str, *overrides: str) -> dict[str, Any]:
    """An experiment with overrides, as plain values."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from perennial.paths import CONF_DIR

    given = [f"experiment={experiment}", "trainer.accelerator=cpu", *overrides]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.absolute())):
        config: Any = OmegaConf.to_container(compose("train", given), resolve=True)
    return dict(config)


def series(
    overrides: Sequence[str], *, folder: Path, first: int = FIRST, last: int = LAST
) -> Iterator[dict[str, Any]]:
    """One row a week: ``model`` and `baselines` before it was seen, ``status`` of its cycle.

    Args:
        overrides: Of ``train.yaml``.
        folder: For the registry and results.
        first: Week of the first cycle, which founds the lineage on those before it.
        last: Week that is only ranked.
    """
    import perennial
    from perennial.launch import run_job

    os.environ["PERENNIAL_HOME"] = str(folder)
    for week in range(first, last + 1):
        # the first model learns all weeks before it
        steps = ("trainer.max_steps=150",) if week == first else ()
        config = composed("films", f"week={week}", *steps, *overrides)
        row: dict[str, Any] = {"week": week, "status": "not run"}
        if week > first:
            champion = perennial.load(f"{config['model_name']}@champion")
            path, length = (config["data"]["new"][name] for name in ("path", "length"))
            row["model"] = recommended(champion, path, week, length)
            row |= baselines(path, week)
        if week < last:
            run = folder / f"week-{week}"
            run.mkdir()
            result, _ = run_job(config, folder=run, multirun=False)
            if result["error"]:
                raise SystemExit(result["error"]["what"])
            row["status"] = result["status"]
        yield row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=FIRST)
    parser.add_argument("--last", type=int, default=LAST)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    scored = []
    with tempfile.TemporaryDirectory() as folder:
        weeks = series(given.overrides, folder=Path(folder), first=given.first, last=given.last)
        for row in weeks:
            arms = {k: v for k, v in row.items() if k not in ("week", "status")}
            scored += [arms] if arms else []
            told = "  ".join(f"{name} {value:.4f}" for name, value in arms.items())
            sys.stdout.write(f"week {row['week']}: {told}  ({row['status']})\n")
            sys.stdout.flush()
    latest = scored[-SCORED:]
    for name in latest[0]:
        mean = np.mean([arms[name] for arms in latest])
        sys.stdout.write(f"mean over {len(latest)} weeks, {name}: {mean:.4f}\n")
    for suffix in ("", ", unrated"):
        best = np.mean([max(arms[f"{name}{suffix}"] for name in SPANS) for arms in latest])
        sys.stdout.write(f"mean over {len(latest)} weeks, each week's best{suffix}: {best:.4f}\n")


if __name__ == "__main__":
    main()
