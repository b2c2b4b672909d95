"""A small server that stands in for the Hugging Face hub, for its real client to talk to.

It answers what `huggingface_hub` and `datasets` ask for when they read: revisions, listings,
``HEAD`` with an ETag, and files in ranges. Repositories may be gated, and downloads may break.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40
_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
    r"(/(?P<what>revision|tree|paths-info)/(?P<revision>[^/]+)(/(?P<path>.*))?)?"
)
_FILE = re.compile(
    r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)


@dataclass
class Repository:
    """Files by name, and what is wrong with the place.

    Attributes:
        files: Name to content.
        token: Of the readers that are let in; None lets everybody in.
        breaks: ``short`` sends half of every large file as if it were whole, ``drops`` breaks the
            connection once in the middle of each.
    """

    files: dict[str, bytes]
    token: str | None = None
    breaks: str | None = None
    dropped: set[str] = field(default_factory=set)


@dataclass
class Hub:
    """What is served, under ``models/org/name`` and ``datasets/org/name``, and what was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Variables that send a client here, with a cache of its own."""
        quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return {"HF_ENDPOINT": self.address, "HF_HOME": str(home), **quiet, **more}


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve it on a free port of this machine."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        api, file = _API.fullmatch(path), _FILE.fullmatch(path)
        found = api or file
        if found is None:
            return self._refuse(404, "EntryNotFound", "no such address")
        kind = found["kind"].strip("/") if found["kind"] else "models"
        repository = self.hub.repositories.get(f"{kind}/{found['name']}")
        if repository is None:
            return self._refuse(404, "RepoNotFound", "Repository Not Found")
        if file and not self._let_in(repository):
            said = f"Access to model {found['name']} is restricted."
            return self._refuse(401, "GatedRepo", said)
        if found["revision"] not in (None, "main", COMMIT):
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {found['revision']}")
        if file:
            return self._file(repository, file["path"])
        assert api is not None
        return self._json(_listed(api, repository, body))

    def _let_in(self, repository: Repository) -> bool:
        given = self.headers.get("Authorization")
        return repository.token is None or given == f"Bearer {repository.token}"

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, code: int, word: str, said: str) -> None:
        headers = {"X-Error-Code": word, "X-Error-Message": said, "X-Repo-Commit": COMMIT}
        self._send(code, json.dumps({"error": said}).encode(), headers)

    def _file(self, repository: Repository, path: str) -> None:
        if path not in repository.files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        content = repository.files[path]
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        large = len(content) > 1000 and self.command == "GET"
        if large and repository.breaks == "short":
            content = content[: len(content) // 2]
        start, end = _range(self.headers.get("Range"), len(content))
        code = 200
        if (start, end) != (0, len(content)):
            code = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        drops = large and repository.breaks == "drops" and path not in repository.dropped
        if drops:
            repository.dropped.add(path)
        return self._send(code, content[start:end], headers, sent=1000 if drops else None)

    def _send(
        self, code: int, content: bytes, headers: dict[str, str], *, sent: int | None = None
    ) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:sent])
        if sent is not None:
            self.close_connection = True


def _range(given: str | None, size: int) -> tuple[int, int]:
    if given is None:
        return 0, size
    start, _, end = given.removeprefix("bytes=").partition("-")
    return int(start), min(int(end) + 1, size) if end else size


def _listed(asked: re.Match[str], repository: Repository, body: str) -> Any:
    """The answer to a question about a repository as a whole, or about some of its paths."""
    if asked["what"] in ("tree", "paths-info"):
        wanted = [asked["path"] or ""]
        if asked["what"] == "paths-info":
            given = (
                json.loads(body)
                if body.startswith("{")
                else {"paths": re.findall(r"paths=([^&]*)", unquote(body))}
            )
            wanted = [given["paths"]] if isinstance(given["paths"], str) else given["paths"]
        return [
            {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
            }
            for path, content in repository.files.items()
            if any(path == one or not one or path.startswith(f"{one}/") for one in wanted)
        ]
    siblings = [{"rfilename": path} for path in repository.files]
    return {
        "_id": "1",
        "id": asked["name"],
        "sha": COMMIT,
        "private": False,
        "gated": "auto" if repository.token else False,
        "tags": [],
        "downloads": 0,
        "siblings": siblings,
    }
