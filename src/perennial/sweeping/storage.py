"""A sweep's database: which ones there are, one sweep at a time in it, and what its loss says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from perennial.errors import RegistryError, first_line
from perennial.locks import TakenError, held_file, held_session
from perennial.masking import MASK, mask_text

BACKENDS = ("sqlite", "postgresql")
NO_FILE = (None, "", ":memory:")


def check_storage(url: str) -> None:
    """Connect once, before anything is trained for a sweep.

    Raises:
        RegistryError: It is no URL of SQLite or PostgreSQL, or cannot be reached.
    """
    _parsed(url)
    with reached(url):
        _engine(url).connect().close()


def sqlite(folder: Path) -> str:
    """URL of the database that a sweep keeps in its own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder.absolute() / 'study.db'}"


@contextmanager
def alone(url: str, name: str) -> Iterator[Callable[[], None]]:
    """Hold a study for this process, wherever others that use its storage were started.

    The lock goes with the process, however it ends: a file beside an SQLite database, an advisory
    lock of the session in PostgreSQL.

    Args:
        url: Of the storage.
        name: Of the study.

    Yields:
        A check that it is still held, which raises RegistryError where it is not.

    Raises:
        RegistryError: Another process is at it, or the storage cannot be used.
    """
    parsed = _parsed(url)
    try:
        with ExitStack() as stack:
            check: Callable[[], None] = lambda: None  # noqa: E731
            with reached(url):
                if parsed.get_backend_name() == "sqlite":
                    path = Path(parsed.database).absolute()
                    stack.enter_context(held_file(path.with_name(f"{path.name}.{name}.lock")))
                else:
                    check = stack.enter_context(held_session(_engine(url), f"sweep/{name}"))

            def held() -> None:
                with reached(url):
                    check()

            yield held
    except TakenError:
        raise RegistryError(
            "Another process is at this very sweep.",
            where=f"study {name}",
            mend="wait until it has ended, or stop it",
        ) from None


@contextmanager
def reached(url: str) -> Iterator[None]:
    """Say a database's trouble in a user's words, without its password.

    Raises:
        RegistryError: It cannot be used, or no longer.
    """
    import sqlalchemy as sa

    known: tuple[type[Exception], ...] = (sa.exc.SQLAlchemyError, ImportError, OSError)
    try:
        yield
    except known as error:
        raise unusable(url, error) from error
    except Exception as error:
        # Optuna's own, named here without importing what may not be installed
        if type(error).__name__ not in ("StorageInternalError", "UpdateFinishedTrialError"):
            raise
        raise unusable(url, error.__cause__ or error) from error


def unusable(url: str, error: BaseException) -> RegistryError:
    """What is told of a storage that fails."""
    return RegistryError(
        f"The sweep's storage cannot be used: {_without_password(first_line(error), url)}",
        where="sweep.storage",
        mend="check the URL, and that its server runs; the same command goes on where it stopped",
    )


def _parsed(url: str) -> Any:
    from sqlalchemy.engine import make_url

    try:
        parsed = make_url(url)
    except Exception:  # several kinds, each of which quotes a part of the URL
        parsed = None
    backend = None if parsed is None else parsed.get_backend_name()
    if parsed is None or backend not in BACKENDS or parsed.database in NO_FILE:
        raise RegistryError(
            "The sweep's storage is no URL of a database that a sweep can be kept in.",
            where="sweep.storage",
            mend="write postgresql+psycopg://USER@HOST/NAME or sqlite:///FILE; null keeps a file "
            "in the sweep's folder",
        ) from None
    return parsed


def _engine(url: str) -> Any:
    import sqlalchemy as sa

    return sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")


def _without_password(text: str, url: str) -> str:
    password = _parsed(url).password
    if password:  # as a word of its own: a short one may be a part of an address
        text = re.sub(rf"(?<![\w.]){re.escape(str(password))}(?![\w.])", MASK, text)
    return mask_text(text)
