# ruff: noqa: N802  (methods are named as the client names its operations)
"""A local stand-in for the W&B server: keeps what the real client sends, in memory."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml


class WandbServer:
    """Runs, history lines, final summaries and artifacts, by run name; a context manager."""

    def __init__(self):
        self.runs: dict[str, dict] = {}
        self.lines: dict[str, dict[str, list[dict]]] = {}
        self.exit_codes: dict[str, int] = {}
        self.artifacts: list[dict] = []
        self.uploads: dict[str, bytes] = {}
        self.used: dict[str, list[str]] = {}
        self.logged: dict[str, list[str]] = {}
        self.aliases: dict[str, dict[str, str]] = {}
        self.views: list[dict] = []
        self.sweep = ""
        self.trials: list[dict] = []
        self.writes = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    def history(self, run):
        return self.lines.get(run, {}).get("wandb-history.jsonl", [])

    def summary(self, run):
        return (self.lines.get(run, {}).get("wandb-summary.json") or [{}])[-1]

    def config(self, run):
        found = json.loads(self.runs[run].get("config") or "{}")
        return {key: item["value"] for key, item in found.items() if isinstance(item, dict)}

    def stream(self, run, body):
        with self._lock:
            for name, part in (body.get("files") or {}).items():
                lines = self.lines.setdefault(run, {}).setdefault(name, [])
                lines.extend(json.loads(line) for line in part["content"] if line[:1] == "{")
            if body.get("complete"):
                self.exit_codes[run] = body.get("exitcode")

    def versions(self, identities):
        """Collection and digest of artifacts, by their ids."""
        found = [self.artifacts[int(identity)] for identity in identities]
        return [(one["artifactCollectionName"], one["digest"]) for one in found]

    def called(self, collection):
        """Alias to digest."""
        found = self.aliases.get(collection, {})
        return {alias: self.artifacts[int(one)]["digest"] for alias, one in found.items()}

    def answer(self, operation, sent):
        with self._lock:
            method = getattr(self, f"_{operation}", None)
            return method(sent) if method else {}

    def _Viewer(self, _):
        viewer = {"id": "u", "entity": "team", "username": "team", "email": "a@example.org"}
        return {"viewer": {**viewer, "flags": "{}", "teams": {"edges": []}}}

    def _GetDefaultEntity(self, sent):
        return self._Viewer(sent)

    def _ServerFeaturesQuery(self, _):
        return {"serverInfo": {"features": []}}

    def _UpsertBucket(self, sent):
        name = sent["name"]
        fresh = name not in self.runs
        run = self.runs.setdefault(name, {})
        run.update({key: item for key, item in sent.items() if item is not None})
        project = {"name": run.get("project"), "id": "p", "entity": {"name": "team", "id": "e"}}
        bucket = {
            "id": base64.b64encode(name.encode()).decode(), "name": name, "sweepName": None,
            "displayName": run.get("displayName") or name, "description": None,
            "config": run.get("config") or "{}", "historyLineCount": 0, "project": project,
        }  # fmt: skip
        return {"upsertBucket": {"inserted": fresh, "bucket": bucket}}

    def _CreateRunFiles(self, sent):
        files = [
            {"name": name, "uploadUrl": f"{self.url}/put/run/{name}"} for name in sent["files"]
        ]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def _ArtifactType(self, _):
        return {"project": {"artifact": None}}

    def _CreateArtifact(self, sent):
        """One artifact per collection and digest, as the real server; aliases move to it."""
        given, collection = sent["input"], sent["input"]["artifactCollectionName"]
        self.writes += 1
        same = [
            number for number, one in enumerate(self.artifacts)
            if (one["artifactCollectionName"], one["digest"]) == (collection, given["digest"])
        ]  # fmt: skip
        if not same:
            same = [len(self.artifacts)]
            self.artifacts.append(given)
        identity = str(same[0])
        known = self.artifacts[same[0]].get("committed", False)
        for alias in given.get("aliases") or []:
            self.aliases.setdefault(collection, {})[alias["alias"]] = identity
        self.logged.setdefault(given["runName"], []).append(identity)
        found = {"id": identity, "state": "COMMITTED" if known else "PENDING"}
        found["artifactSequence"] = {"latestArtifact": None}
        return {"createArtifact": {"artifact": found}}

    def _UseArtifact(self, sent):
        given = sent["input"]
        self.used.setdefault(given["runName"], []).append(given["artifactID"])
        return {"useArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}

    def _manifest(self, identity):
        file = {"id": "f", "uploadUrl": f"{self.url}/put/manifest/{identity}", "uploadHeaders": []}
        return {"artifactManifest": {"id": identity, "file": file}}

    def _CreateArtifactManifest(self, sent):
        return {"createArtifactManifest": self._manifest(sent["artifactID"])}

    def _UpdateArtifactManifest(self, sent):
        return {"updateArtifactManifest": self._manifest(sent["artifactManifestID"])}

    def _CreateArtifactFiles(self, sent):
        edges = [
            {"node": {
                "storagePath": None, "uploadHeaders": [], "uploadMultipartUrls": None,
                "uploadUrl": f"{self.url}/put/{file['artifactID']}/{file['name']}",
                "artifact": {"id": file["artifactID"]},
            }}
            for file in sent["input"]["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, sent):
        self.artifacts[int(sent["artifactID"])]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": sent["artifactID"], "digest": "d"}}}

    def _artifact(self, identity):
        given = self.artifacts[int(identity)]
        project = {
            "name": given["projectName"], "id": "p", "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ==",
            "entity": {"name": "team", "id": "e"},
        }  # fmt: skip
        name = given["artifactCollectionName"]
        collection = {"__typename": "ArtifactSequence", "name": name, "project": project}
        called = [alias for alias, one in self.aliases.get(name, {}).items() if one == identity]
        earlier = self.artifacts[: int(identity)]
        index = sum(one["artifactCollectionName"] == name for one in earlier)
        aliases = [
            {"__typename": "ArtifactAlias", "id": f"{identity}-{alias}", "alias": alias,
             "artifactCollection": collection}
            for alias in (*called, f"v{index}")
        ]  # fmt: skip
        return {
            "__typename": "Artifact", "id": identity, "artifactSequence": collection,
            "versionIndex": index, "artifactType": {"name": given["artifactTypeName"]},
            "description": None, "metadata": given.get("metadata") or "{}",
            "ttlDurationSeconds": -1,
            "ttlIsInherited": False, "tags": [], "historyStep": None, "state": "COMMITTED",
            "size": 1, "digest": given["digest"], "commitHash": "c", "fileCount": 1,
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
            "aliases": aliases,
        }  # fmt: skip

    def _ProjectArtifacts(self, sent):
        own = [
            self._artifact(str(number)) for number, one in enumerate(self.artifacts)
            if one["artifactCollectionName"] == sent["collection"] and one.get("committed")
        ]  # fmt: skip
        if not own:
            return {"project": {"artifactType": {"artifactCollection": None}}}
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        edges = [{"version": f"v{one['versionIndex']}", "node": one} for one in own]
        found = {"totalCount": len(own), "pageInfo": page, "edges": edges}
        found = {"__typename": "ArtifactSequence", "artifacts": found}
        return {"project": {"artifactType": {"artifactCollection": found}}}

    def _ProjectArtifactCollection(self, sent):
        names = {one["artifactCollectionName"] for one in self.artifacts}
        project = {
            "id": "p",
            "internalId": "i",
            "name": sent["project"],
            "entity": {"name": "team"},
        }
        found = {
            "__typename": "ArtifactSequence", "id": "c", "name": sent["name"], "description": None,
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": None, "project": project,
            "type": {"name": sent["type"]}, "tags": {"edges": []},
        }  # fmt: skip
        known = found if sent["name"] in names else None
        return {"project": {"artifactType": {"artifactCollection": known}}}

    def _AddAliases(self, sent):
        self.writes += 1
        for alias in sent["input"]["aliases"]:
            own = self.aliases.setdefault(alias["artifactCollectionName"], {})
            own[alias["alias"]] = sent["input"]["artifactID"]
        return {"result": {"success": True}}

    def _DeleteAliases(self, sent):
        self.writes += 1
        for alias in sent["input"]["aliases"]:
            del self.aliases[alias["artifactCollectionName"]][alias["alias"]]
        return {"result": {"success": True}}

    def _UpdateArtifact(self, sent):
        return {"result": {"artifact": self._artifact(sent["input"]["artifactID"])}}

    def _UpsertSweep(self, sent):
        """A sweep whose trials are the corners of its parameters: each value, or the least one."""
        self.sweep = sent["config"]
        given = yaml.safe_load(sent["config"])
        values = {
            name: one.get("values") or [one["value"] if "value" in one else one["min"]]
            for name, one in given["parameters"].items()
        }
        for number, each in enumerate(itertools.product(*values.values())):
            args = {name: {"value": one} for name, one in zip(values, each, strict=True)}
            self.trials.append(
                {"type": "run", "run_id": f"trial{number}", "program": given.get("program"),
                 "args": args}
            )  # fmt: skip
        project = {"id": "p", "name": "perennial", "entity": {"id": "e", "name": "team"}}
        found = {"name": "sweep001", "project": project}
        return {"upsertSweep": {"sweep": found, "configValidationWarnings": []}}

    def _SweepWithRuns(self, sent):
        found = {"name": sent["sweep"], "config": self.sweep, "state": "RUNNING"}
        return {"project": {"sweep": {**found, "controller": None, "runs": {"edges": []}}}}

    def _GetSweepState(self, _):
        return {"project": {"sweep": {"state": "RUNNING"}}}

    def _CreateAgent(self, _):
        return {"createAgent": {"agent": {"id": "agent"}}}

    def _Heartbeat(self, sent):
        commands = []
        if not json.loads(sent.get("runState") or "{}"):
            commands = [self.trials.pop(0) if self.trials else {"type": "exit"}]
        answer = {"agent": {"id": "agent"}, "commands": json.dumps(commands)}
        return {"agentHeartbeat": answer}

    def _UpsertView2(self, sent):
        self.views.append(sent)
        view = {"id": "view", "name": sent["name"]}
        return {"upsertView": {"view": view, "inserted": True}}

    def _ArtifactByID(self, sent):
        return {"artifact": self._artifact(sent["id"])}

    def _ArtifactMembershipByName(self, sent):
        found = self._artifact(str(len(self.artifacts) - 1))
        member = {
            "__typename": "ArtifactCollectionMembership", "id": "m", "artifact": found,
            "artifactCollection": found["artifactSequence"],
            **{key: found[key] for key in ("versionIndex", "createdAt", "aliases")},
        }  # fmt: skip
        return {"project": {"artifactCollectionMembership": member}}

    def _FetchArtifactManifest(self, sent):
        url = f"{self.url}/put/manifest/{sent['id']}"
        return {"artifact": {"currentManifest": {"file": {"directUrl": url}}}}

    def _GetArtifactMembershipFileUrls(self, sent):
        prefix = f"/put/{len(self.artifacts) - 1}/"
        edges = [
            {"node": {"__typename": "File", "name": path.removeprefix(prefix),
                      "directUrl": f"{self.url}{path}"}}
            for path in self.uploads
            if path.startswith(prefix)
        ]  # fmt: skip
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        member = {"files": {"pageInfo": page, "edges": edges}}
        collection = {"__typename": "ArtifactSequence", "artifactMembership": member}
        return {"project": {"artifactCollection": collection}}


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _body(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _reply(self, value, code=200):
            content = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            content = server.uploads.get(self.path)
            if content is None:
                return self._reply({}, 404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return None

        def do_PUT(self):
            server.uploads[self.path] = self._body()
            self._reply({})

        def do_POST(self):
            raw = self._body()
            if "json" not in self.headers.get("Content-Type", "") or not raw.strip():
                return self._reply({})  # telemetry in another format
            body = json.loads(raw)
            if stream := re.search(r"/([^/]+)/file_stream$", self.path):
                server.stream(stream[1], body)
                return self._reply({"exitcode": None, "limits": {}})
            query = re.search(r"(?:query|mutation)\s+(\w+)", body.get("query", ""))
            name = query[1] if query else ""
            return self._reply({"data": server.answer(name, body.get("variables") or {})})

    return Handler
