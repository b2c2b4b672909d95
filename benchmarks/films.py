"""Weeks of film ratings, a cycle per week; each is ranked before the model sees it.

python benchmarks/films.py [backtest.last=20] [seed=1] ...
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from harness import replayed

PATH = "published:movietweetings-100k/ratings.dat"
LAST, SCORED = 27, 8
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


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        given = ("experiment=films", f"folder={folder}", *sys.argv[1:])
        weeks = replayed(*given, policy="every:1")["windows"]
    scored = []
    for one in weeks:
        arms = {"model": one["score"], **baselines(PATH, one["window"])}
        scored.append(arms)
        told = "  ".join(f"{name} {value:.4f}" for name, value in arms.items())
        after = one["cycle"]["verdict"] if one["cycle"] else "none"
        sys.stdout.write(f"week {one['window']}: {told}  (the cycle after: {after})\n")
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
