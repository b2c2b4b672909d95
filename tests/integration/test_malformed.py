"""Ten malformed versions of each kind of source: each gives one clear message, and exit code 30."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from support.hub_server import Hub, Repository, serve
from support.refused import refusal

Write = Callable[[Path], Any]


def good(rows: int = 400) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, rows)
    return pd.DataFrame(
        {"x": generator.normal(label), "n": np.arange(rows), "label": np.array(["a", "b"])[label]}
    )


def frames() -> dict[str, tuple[pd.DataFrame, str]]:
    """Malformed whatever they are written as, with a word of the message."""
    table = good()
    return {
        "no label column": (table.rename(columns={"label": "labels"}), "no column 'label'"),
        "missing labels": (
            table.assign(label=table["label"].where(table["n"] > 5)),
            "missing values in 6|blank values in 6",
        ),
        "a missing number": (table.assign(x=table["x"].where(table["n"] != 7)), "first in row 7"),
        "text among numbers": (table.assign(x=table["x"].astype(str) + "?"), "type"),
        "no feature": (table[["label"]], "No feature column"),
        "no rows": (table[:0], "no rows"),
        "few rows": (table[:12], "independent rows"),
    }


def csv(path: Path, content: bytes) -> Path:
    path = path / "bad.csv"
    path.write_bytes(content)
    return path


def bytes_of(frame: pd.DataFrame, kind: str) -> bytes:
    sink = io.BytesIO()
    if kind == "parquet":
        frame.to_parquet(sink, index=False)
    elif kind == "csv":
        frame.to_csv(sink, index=False)
    elif kind == "arrow":
        table = pa.Table.from_pandas(frame, preserve_index=False)
        with pa.ipc.new_file(sink, table.schema) as file:
            file.write_table(table)
    else:
        frame.to_json(sink, orient="records", lines=True)
    return sink.getvalue()


def files_of(kind: str) -> dict[str, tuple[Write, str]]:
    """The frames, and what only a file can be."""
    whole = bytes_of(good(), kind)
    if kind == "csv":
        own = {
            "ragged": (whole + b"1,2,a,4\n", "cannot be read"),
            "twice one column": (whole.replace(b"x,n", b"x,x", 1), "named 'x'"),
            "not compressed": (whole, "cannot be read"),
        }
    else:
        own = {
            "cut off": (whole[: len(whole) // 2 - 3], "cannot be read"),
            "empty": (b"", "is empty"),
            "another kind": (b"\x89PNG\r\n\x1a\n" * 9, "cannot be read"),
        }
    suffix = "jsonl" if kind == "json lines" else kind

    def writer(content: bytes, name: str) -> Write:
        end = ".gz" if name == "not compressed" else ""

        def write(folder: Path) -> Path:
            (folder / f"bad.{suffix}{end}").write_bytes(content)
            return folder / f"bad.{suffix}{end}"

        return write

    shared = {name: (bytes_of(frame, kind), word) for name, (frame, word) in frames().items()}
    if kind == "json lines":  # which has neither columns nor types where it has no rows
        shared["no rows"] = (b"\n", "read|no rows")
    return {name: (writer(c, name), word) for name, (c, word) in {**shared, **own}.items()}


def image(path: Path, size: tuple[int, int] = (4, 4), mode: str = "L", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size[::-1] if mode == "L" else (*size[::-1], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def images(spoil: Callable[[Path], object], *, keep: bool = True) -> Write:
    def write(folder: Path) -> Path:
        root = folder / "images"
        root.mkdir()
        for number in range(40 if keep else 0):
            image(root / "ab"[number % 2] / f"{number}.png", seed=number)
        spoil(root)
        return root

    return write


def _cut(root: Path) -> None:
    path = root / "a" / "0.png"
    path.write_bytes(path.read_bytes()[:40])


def image_folders() -> dict[str, tuple[Write, str]]:
    return {
        "cut off": (images(_cut), "image in row 0 cannot be read"),
        "empty": (images(lambda r: (r / "a" / "0.png").write_bytes(b"")), "cannot be read"),
        "no image": (images(lambda r: (r / "b" / "1.png").write_text("x")), "cannot be read"),
        "another size": (images(lambda r: image(r / "b" / "1.png", (5, 4))), "differ in shape"),
        "another mode": (images(lambda r: image(r / "b" / "1.png", mode="RGB")), "differ in shape"),
        "beside the classes": (images(lambda r: image(r / "9.png")), "one folder per class"),
        "too deep": (images(lambda r: image(r / "a" / "b" / "9.png")), "one folder per class"),
        "nothing": (images(lambda r: None, keep=False), "0 kinds"),
        "few": (
            images(lambda r: [p.unlink() for p in sorted(r.rglob("*.png"))[4:]]),
            "independent rows|none of them is to learn",
        ),
        "only other files": (
            images(lambda r: (r / "a.md").write_text("x"), keep=False),
            "0 kinds",
        ),
    }


LINES = "\n".join(f"line {n} of this" for n in range(200))


def texts(**files: bytes | str) -> Write:
    def write(folder: Path) -> Path:
        root = folder / "texts"
        root.mkdir()
        for name, content in files.items():
            path = root / (name.replace("__", "/") + ".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return write


def text_folders() -> dict[str, tuple[Write, str]]:
    def lone(folder: Path) -> Path:
        return texts(only=LINES)(folder) / "only.txt"

    def beside_table(folder: Path) -> Path:
        root: Path = texts(a=LINES)(folder)
        (root / "more.csv").write_text("text\nx\n")
        return root

    def not_compressed(folder: Path) -> Path:
        root: Path = texts(a=LINES)(folder)
        (root / "a.txt").rename(root / "a.txt.gz")
        return root

    return {
        "no label": (lone, "no column 'label'"),
        "an empty file": (texts(a=LINES, b=""), "b.txt is empty"),
        "only blank lines": (texts(a="\n\n  \n", b="\n"), "no rows"),
        "no text": (texts(a=b"\xff\xfe\x00\xd8" * 9, b=LINES), "cannot be read"),
        "folders and files": (texts(a__x=LINES, b=LINES), "one folder per class"),
        "too deep": (texts(a__b__c__x=LINES), "one folder per class"),
        "beside a table": (beside_table, "2 kinds"),
        "not compressed": (not_compressed, "cannot be read"),
        "few": (texts(a="one\ntwo\n", b="three\n"), "independent rows|none of them is to learn"),
        "nothing": (texts(), "0 kinds"),
    }


def query(sql: str = "select * from t", **odd: Any) -> Write:
    def write(folder: Path) -> dict[str, Any]:
        path = folder / "shop.db"
        with sqlite3.connect(path) as connection:
            good().to_sql("t", connection, index=False)
        return {"sql": sql, "url": f"sqlite:///{path}", **odd}

    return write


def queries() -> dict[str, tuple[Write, str]]:
    mixed = "select case n when 3 then 'three' else x end as x, label from t"
    return {
        "no such table": (query("select * from nowhere"), "no such table: nowhere"),
        "no SQL": (query("select all of it"), "syntax error|no such column"),
        "no rows of it": (query("select * from t where n < 0"), "no rows"),
        "no result": (query("update t set x = 1"), "one statement that reads"),
        "twice one column": (query("select x, x, label from t"), "named 'x'"),
        "mixed values": (query(mixed), "Column 'x' cannot be read"),
        "missing values": (query("select nullif(n, 3) as n, label from t"), "first in row 3"),
        "no address": (query(url="nowhere"), "Could not parse|query failed"),
        "no driver": (query(url="oracledb://x/y"), "query failed"),
        "another key": (query(limit="5"), "takes sql and url"),
    }


def days(spoil: Callable[[Path], object] = lambda r: None, **options: str) -> Write:
    def write(folder: Path) -> dict[str, str]:
        root = folder / "days"
        for day in (1, 2):
            (root / f"dt=2026-11-0{day}").mkdir(parents=True)
            path = root / f"dt=2026-11-0{day}" / "rows.csv"
            good().assign(day=day).to_csv(path, index=False)
        spoil(root)
        return {"partitions": str(root), **options}

    return write


def partitions() -> dict[str, tuple[Write, str]]:
    first, second = "dt=2026-11-01", "dt=2026-11-02"

    def other_columns(root: Path) -> None:
        pd.DataFrame({"y": ["?"], "label": ["a"]}).to_csv(root / second / "rows.csv", index=False)

    return {
        "no folder": (days(shutil.rmtree), "no such folder"),
        "no partitions": (days(lambda r: (r / first).rename(r / "other")), "no dated partitions"),
        "two forms": (days(lambda r: (r / first).rename(r / "2026-10")), "several forms"),
        "one date twice": (
            days(lambda r: shutil.copytree(r / first, r / "2026-11-01")),
            "2026-11-01 is there 2 times",
        ),
        "no files": (days(lambda r: (r / second / "rows.csv").unlink()), "has no files"),
        "an empty file": (days(lambda r: (r / second / "rows.csv").write_text("")), "is empty"),
        "another kind": (
            days(lambda r: (r / second / "rows.csv").rename(r / second / "rows.log")),
            "kind .log cannot be read",
        ),
        "other columns": (days(other_columns), "missing values|cannot be read"),
        "a date of another form": (days(after="2026-11"), "after is '2026-11'"),
        "an unknown key": (days(since="2026-11-01"), "have no 'since'"),
    }


def names(kind: str) -> dict[str, str]:
    """The cases of a kind, as names on the hub."""
    return {case: f"team/{case.replace(' ', '-')}" for case in KINDS[kind]}


def published() -> dict[str, tuple[Write, str]]:
    """Only named here: the files lie on a server, see `hub`."""

    def named(case: str) -> Write:
        return lambda folder: names("hub id")[case]

    own = {
        "gone": "doesn't exist on the Hub",
        "gated": "is a gated dataset",
        "cut short": "Consistency check failed",
    }
    words = {case: word for case, (_, word) in frames().items()} | own
    return {case: (named(case), word) for case, word in words.items()}


def repositories() -> dict[str, Repository]:
    whole = bytes_of(good(), "parquet")
    contents = {case: bytes_of(frame, "parquet") for case, (frame, _) in frames().items()}
    made = {case: Repository({"train.parquet": content}) for case, content in contents.items()}
    made["gated"] = Repository({"train.parquet": whole}, token="hf_of_somebody_else")
    made["cut short"] = Repository({"train.parquet": whole}, breaks="short")
    made = {f"datasets/{names('hub id')[case]}": one for case, one in made.items()}
    return {**made, "datasets/team/good": Repository({"train.parquet": whole})}


KINDS: dict[str, dict[str, tuple[Write, str]]] = {
    **{kind: files_of(kind) for kind in ("csv", "parquet", "json lines", "arrow")},
    "image folder": image_folders(),
    "text": text_folders(),
    "sql": queries(),
    "hub id": published(),
    "partitions": partitions(),
}
CASES = [(kind, case) for kind, cases in KINDS.items() for case in cases]


def test_there_are_ten_of_each() -> None:
    assert {kind: len(cases) for kind, cases in KINDS.items()} == dict.fromkeys(KINDS, 10)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any] | None]:
    """What another process, that knows the hub by its address alone, is told of each."""
    folder = tmp_path_factory.mktemp("hub")
    specs = ["team/good", *names("hub id").values()]
    with serve(Hub(repositories())) as server:
        done = subprocess.run(
            [sys.executable, "-m", "support.refused", str(folder), *specs],
            cwd=Path(__file__).parents[1],
            env={**os.environ, **server.environment(folder / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    told: dict[str, dict[str, Any] | None] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize(("kind", "case"), CASES, ids=[f"{k}: {c}" for k, c in CASES])
def test_malformed(kind: str, case: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write, words = KINDS[kind][case]
    spec = write(tmp_path)
    told: dict[str, Any] | None
    if kind == "hub id":
        told = request.getfixturevalue("hub")[spec]
    else:
        told = refusal(spec, tmp_path, text=kind == "text")
    assert told is not None, "nothing was found wrong"
    assert all(told.values()), told
    assert "data." in told["where"]
    assert "Traceback" not in told["what"]
    text = json.dumps(told)
    assert any(word in text for word in words.split("|")), told


def test_a_data_set_of_the_hub_is_in_order(hub: dict[str, dict[str, Any] | None]) -> None:
    assert hub["team/good"] is None


@pytest.mark.parametrize("kind", ["csv", "parquet", "json lines", "arrow"])
def test_what_they_are_made_of_is_in_order(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"good.{'jsonl' if kind == 'json lines' else kind}"
    path.write_bytes(bytes_of(good(), kind))
    assert refusal(path, tmp_path) is None
    if kind == "csv":
        with gzip.open(tmp_path / "good.csv.gz", "wb") as file:
            file.write(path.read_bytes())
        assert refusal(tmp_path / "good.csv.gz", tmp_path) is None


@pytest.mark.parametrize("write", [days(), query()], ids=["partitions", "sql"])
def test_these_are_in_order_too(write: Write, tmp_path: Path) -> None:
    assert refusal(write(tmp_path), tmp_path) is None
