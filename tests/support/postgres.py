"""A PostgreSQL server of a test's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    # PostgreSQL refuses to run as root, and its user must be able to enter the folder.
    folder = Path(tempfile.mkdtemp(prefix="perennial-pg-"))
    is_root = os.getuid() == 0
    prefix = ["runuser", "-u", "postgres", "--"] if is_root else []
    if is_root:
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data, password = folder / "data", folder / "password"
    password.write_text("s3cret")
    password.chmod(0o644)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"

    def call(program: str, *arguments: str) -> None:
        command = [*prefix, str(BINARIES[-1] / program), "-D", str(data), *arguments]
        log = folder.parent / f"{folder.name}.log"
        with log.open("a") as output:
            subprocess.run(command, check=True, cwd=folder, stdout=output, stderr=output)

    call("initdb", "-U", "team", "-A", "scram-sha-256", "--pwfile", str(password), "-N")
    call("pg_ctl", "-w", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://team:s3cret@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder)
        (folder.parent / f"{folder.name}.log").unlink()


@pytest.fixture
def url(server: str) -> str:
    with sa.create_engine(server, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    return server
