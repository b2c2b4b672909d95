"""A message over HTTP, to a real server in a thread."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from perennial.errors import ConfigError, NotificationError
from perennial.notification import Webhook

MESSAGE = {"text": "digits: promoted.", "status": "promoted", "checks": [{"estimate": None}]}
PATH = "/services/T0/s3cret"


class Server:
    """Answers as it is told to, and keeps what it was sent."""

    def __init__(self) -> None:
        self.status, self.headers, self.delay = 200, dict[str, str](), 0.0
        self.got: list[tuple[str, dict[str, str], Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, dict(self.headers), json.loads(body)))
                time.sleep(outer.delay)
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_GET(self) -> None:
                outer.got.append((self.path, dict(self.headers), None))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.host}{PATH}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Server()
    yield found
    found.server.shutdown()
    found.server.server_close()


def refused(url: str, *, timeout: float = 10.0) -> str:
    with pytest.raises(NotificationError) as caught:
        Webhook(url=url, headers={"Authorization": "Bearer t0ken"}, timeout=timeout).send(MESSAGE)
    said = str(caught.value)
    assert "s3cret" not in said
    assert "t0ken" not in said
    return said


def test_the_message_arrives_whole(server: Server) -> None:
    Webhook(url=server.url, headers={"Authorization": "Bearer t0ken"}).send(MESSAGE)
    ((path, headers, body),) = server.got
    assert (path, body) == (PATH, MESSAGE)
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Bearer t0ken"


def test_any_2xx_is_success(server: Server) -> None:
    server.status = 204
    Webhook(url=server.url).send(MESSAGE)
    assert [body for _, _, body in server.got] == [MESSAGE]


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 500, 503])
def test_another_answer_is_said_with_the_host_alone(server: Server, status: int) -> None:
    server.status, server.headers = status, {"Location": f"http://{server.host}/elsewhere"}
    assert f"{server.host} was not told: it answered {status}." in refused(server.url)
    assert [path for path, _, _ in server.got] == [PATH]  # a redirect was not followed


def test_a_slow_server_is_not_waited_for(server: Server) -> None:
    server.delay = 1.5
    assert "no answer within 0.2 seconds" in refused(server.url, timeout=0.2)


def test_an_answer_that_trickles_has_no_longer_than_the_time_in_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not stop.wait(0.05):
                    connection.sendall(b"X: y\r\n")
                connection.sendall(b"\r\n")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}"
        assert "no answer within 0.3 seconds" in refused(url, timeout=0.3)
        stop.set()
        thread.join()


def test_a_closed_port_and_an_unknown_host_are_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "Connection refused" in refused(f"http://127.0.0.1:{port}{PATH}")
    assert refused(f"http://nowhere.invalid{PATH}").startswith("nowhere.invalid was not told: ")


def test_what_does_not_speak_http_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-x\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        told = refused(f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}")
        thread.join()
    assert "was not told: BadStatusLine" in told


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "hooks.example.com/s3cret",
        "ftp://hooks.example.com/s3cret",
        "file:///etc/s3cret",
        "https:///s3cret",
        "https://ann:s3cret@hooks.example.com/",
        "https://hooks.example.com:s3cret/",
        "https://hooks.example.com/s3cret word",
        "https://hooks.example.com/s3cret\r\nX: y",
    ],
)
def test_an_odd_address_is_refused_and_not_repeated(url: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        Webhook(url=url)
    assert caught.value.where == "notify.url"
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"when": []}, "notify.when"),
        ({"when": ["promote"]}, "notify.when"),
        ({"timeout": 0}, "notify.timeout"),
        ({"timeout": float("nan")}, "notify.timeout"),
        ({"timeout": True}, "notify.timeout"),
        ({"headers": "s3cret"}, "notify.headers"),
        ({"headers": {"X": "s3cret\nY: z"}}, "notify.headers.X"),
        ({"headers": {"X Y": "s3cret"}}, "notify.headers.X Y"),
        ({"headers": {"X": None}}, "notify.headers.X"),
    ],
)
def test_odd_settings_are_refused(changes: dict[str, Any], where: str) -> None:
    make: Callable[..., Webhook] = Webhook
    with pytest.raises(ConfigError) as caught:
        make(url="https://hooks.example.com/a", **changes)
    assert caught.value.where == where
    assert "s3cret" not in str(caught.value)
