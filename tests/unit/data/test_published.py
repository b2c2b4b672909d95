"""Public files over a real server: fetched once, and never another file."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from perennial.data import published
from perennial.data.published import FILES, Published, located
from perennial.errors import DataError

CONTENT = b"1::2::3::4\n" * 1000


class Quiet(SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a server was asked for that has ``films/ratings.dat`` and ``calls.zip``."""
    root = tmp_path / "served"
    root.mkdir()
    (root / "ratings.dat").write_bytes(CONTENT)
    with zipfile.ZipFile(root / "calls.zip", "w") as archive:
        archive.writestr("calls/all.csv", CONTENT)
    found: list[str] = []
    quiet = type("Handler", (Quiet,), {"asked": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: quiet(*args, directory=str(root)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    at = f"http://127.0.0.1:{server.server_address[1]}"
    digest = hashlib.sha256(CONTENT).hexdigest()
    known = {
        "films/ratings.dat": Published(f"{at}/ratings.dat", digest, len(CONTENT)),
        "calls/all.csv": Published(
            f"zip://calls/all.csv::simplecache::{at}/calls.zip", digest, len(CONTENT)
        ),
        "films/other.dat": Published(f"{at}/ratings.dat", "0" * 64, len(CONTENT)),
        "films/long.dat": Published(f"{at}/ratings.dat", digest, len(CONTENT) - 2),
        "gone/gone.dat": Published(f"{at}/gone.dat", digest, len(CONTENT)),
    }
    monkeypatch.setattr(published, "FILES", known)
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PERENNIAL_DATA", raising=False)
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_is_fetched_once_and_again_where_it_was_changed(asked: list[str]) -> None:
    path = Path(located("published:films/ratings.dat"))
    assert path.read_bytes() == CONTENT
    fetched = len(asked)
    assert fetched
    assert located("published:films/ratings.dat") == str(path)
    assert len(asked) == fetched
    path.write_bytes(CONTENT[:-1])
    located("published:films/ratings.dat")
    assert path.read_bytes() == CONTENT
    assert len(asked) > fetched


def test_a_folder_is_all_its_files_and_a_member_comes_out_of_its_archive(asked: list[str]) -> None:
    folder = Path(located("published:/calls"))
    assert (folder / "all.csv").read_bytes() == CONTENT
    assert asked


@pytest.mark.parametrize("name", ["films/other.dat", "films/long.dat"])
def test_another_file_is_refused_and_not_kept(asked: list[str], name: str) -> None:
    with pytest.raises(DataError, match="another file") as told:
        located(f"published:{name}")
    assert "PERENNIAL_DATA" in str(told.value.mend)
    assert not list(published.home().rglob("*.dat"))


def test_what_cannot_be_fetched_names_the_folder_to_set(asked: list[str]) -> None:
    with pytest.raises(DataError, match="could not be fetched") as told:
        located("published:gone/gone.dat")
    assert "gone/gone.dat" in str(told.value.mend)
    with pytest.raises(DataError, match="Nothing is published"):
        located("published:rating")
    assert located("my/ratings.dat") == "my/ratings.dat"


def test_a_folder_of_ones_own_is_taken_and_nothing_is_asked(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_DATA", "/data")
    assert located("published:films/ratings.dat") == "/data/films/ratings.dat"
    assert located("published:/clinc150") == "/data/clinc150"
    assert not asked


def test_every_file_is_pinned_to_a_revision() -> None:
    assert len({one.sha256 for one in FILES.values()}) == len(FILES)
    for file in FILES.values():
        assert len(bytes.fromhex(file.sha256)) == 32
        revisions = [part for part in file.url.split("/") if len(part) == 40]
        assert len(revisions) == 1
        assert file.url.rpartition("::")[2].startswith("https://")


@pytest.mark.skipif(published.FOLDER not in os.environ, reason="no PERENNIAL_DATA")
@pytest.mark.parametrize("name", FILES)
def test_files_that_are_here_are_those(name: str) -> None:
    content = Path(located(f"published:{name}")).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (
        FILES[name].size,
        FILES[name].sha256,
    )
