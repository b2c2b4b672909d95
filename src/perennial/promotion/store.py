"""Content-addressed files: a blob's name is its SHA-256, so versions share equal files.

Blobs are verified whenever they are read, and written read-only, so that an editor that follows
a hard link cannot change a version by accident.
"""

from __future__ import annotations

import io
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from perennial import files
from perennial.errors import (
    ConfigError,
    IntegrityError,
    PerennialError,
    RegistryError,
    StorageError,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PARTS = {"", ".", ".."}


class Store(Protocol):
    """Where blobs lie."""

    shown: str

    def claim(self, owner: str) -> None:
        """Belong to one registry, by its id.

        A sweep removes what its own registry does not refer to, so a second one's files would go.

        Raises:
            ConfigError: The store belongs to another registry.
        """
        ...

    def put(self, content: Path | bytes) -> str:
        """Keep a file or bytes; returns the SHA-256."""
        ...

    def fetch(self, sha256: str, *, what: str) -> Path:
        """A verified local file; ``what`` names file and version in an error."""
        ...

    def has(self, sha256: str) -> bool:
        """Whether a blob is there (its content is checked only by `fetch`)."""
        ...

    def remove(self, sha256: str) -> None:
        """Remove a blob, and what is cached of it here; one that is gone already is no error."""
        ...

    def remove_unless(self, referenced: set[str], *, older_than: float) -> int:
        """Remove blobs that nothing refers to, last written before a Unix time."""
        ...


def open_store(location: str, *, cache: Path) -> Store:
    """A local store for a path or ``file://`` URL, else an fsspec one.

    Args:
        location: Path or fsspec URL.
        cache: Local folder where an fsspec store keeps what it has read.
    """
    if location.startswith("file://"):
        return LocalStore(Path(location.removeprefix("file://")))
    if "://" in location:
        return RemoteStore(location, cache=cache)
    return LocalStore(Path(location))


class LocalStore:
    """Blobs in a local or mounted folder, as ``<root>/<2 hex digits>/<64 hex digits>``."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.shown = str(self.root)

    def claim(self, owner: str) -> None:
        """Belong to one registry; see `Store.claim`."""
        path = self.root / "owner"
        if path.is_file():
            _check_owner(path.read_text(), owner, self.shown)
        else:
            files.write_bytes(path, owner.encode())

    def path(self, sha256: str) -> Path:
        """Where a blob lies, or would lie."""
        return self.root / sha256[:2] / sha256

    def put(self, content: Path | bytes) -> str:
        """Keep a file or bytes; an existing blob is verified, and replaced if it is damaged."""
        digest = _digest(content)
        path = self.path(digest)
        try:
            if path.is_file() and files.hash_file(path) == digest:
                path.touch()  # a sweep must not take it for an old orphan
                return digest
        except OSError as error:
            raise files.storage_error(error, path) from error
        with _opened(content) as source:
            written = files.write(path, lambda file: shutil.copyfileobj(source, file, 1 << 20))
        if written != digest:
            path.unlink(missing_ok=True)
            raise StorageError(
                "A file changed while it was stored.",
                where=str(content) if isinstance(content, Path) else None,
                mend="run the same command again, with nothing else writing there",
            )
        path.chmod(0o444)
        return digest

    def fetch(self, sha256: str, *, what: str) -> Path:
        """The blob's own path, once its SHA-256 was verified."""
        path = self.path(sha256)
        try:
            found = files.hash_file(path)
        except FileNotFoundError:
            raise _missing(what, str(path)) from None
        except OSError as error:
            raise RegistryError(
                f"Could not read {what}: {error.strerror}.", where=str(path)
            ) from error
        if found != sha256:
            raise _damaged(what, str(path))
        return path

    def has(self, sha256: str) -> bool:
        """Whether a blob is there."""
        return self.path(sha256).is_file()

    def remove(self, sha256: str) -> None:
        """Remove a blob."""
        try:
            self.path(sha256).unlink(missing_ok=True)
        except OSError as error:
            raise files.storage_error(error, self.path(sha256)) from error

    def remove_unless(self, referenced: set[str], *, older_than: float) -> int:
        """Remove old blobs that nothing refers to."""
        removed = 0
        for path in self.root.glob("??/*"):
            if not _SHA256.fullmatch(path.name) or path.name in referenced:
                continue
            if path.stat().st_mtime < older_than:
                path.unlink(missing_ok=True)
                removed += 1
        return removed


class RemoteStore:
    """Blobs behind any fsspec URL, read through a verified local cache."""

    def __init__(self, url: str, *, cache: Path) -> None:
        self._url = url
        self.shown = _masked(url)
        self._cache = LocalStore(cache)
        try:
            import fsspec  # only a team's registry pays for this import

            self._fs: Any
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"The registry's files cannot be opened: {error}.",
                where=f"registry.files={self.shown}",
                mend="install the file system's fsspec driver (s3fs, gcsfs, …) or use a path",
            ) from None
        self._root = str(root).rstrip("/")

    def put(self, content: Path | bytes) -> str:
        """Upload a file or bytes unless a blob of that name and size is there."""
        digest = _digest(content)
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        target = self._path(digest)
        with self._translated("write"):
            if self._fs.exists(target) and self._fs.info(target)["size"] == size:
                return digest
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            with _opened(content) as source, self._fs.open(target, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        return digest

    def fetch(self, sha256: str, *, what: str) -> Path:
        """A verified copy in the cache; a damaged cached copy is fetched again."""
        path = self._cache.path(sha256)
        if path.is_file() and files.hash_file(path) == sha256:
            return path
        source = self._path(sha256)
        with self._translated("read"):
            if not self._fs.exists(source):
                raise _missing(what, f"{self.shown}/{sha256[:2]}/{sha256}")
            with self._fs.open(source, "rb") as file:
                found = files.write(path, lambda out: self._copy(file, out))
        if found != sha256:
            path.unlink(missing_ok=True)
            raise _damaged(what, f"{self.shown}/{sha256[:2]}/{sha256}")
        path.chmod(0o444)
        return path

    def has(self, sha256: str) -> bool:
        """Whether a blob is there."""
        with self._translated("read"):
            return bool(self._fs.exists(self._path(sha256)))

    def remove(self, sha256: str) -> None:
        """Remove a blob and its cached copy."""
        self._cache.remove(sha256)
        with self._translated("remove"):
            if self._fs.exists(target := self._path(sha256)):
                self._fs.rm_file(target)

    def remove_unless(self, referenced: set[str], *, older_than: float) -> int:
        """Remove old blobs that nothing refers to; none where the store keeps no times.

        Cached copies go, too: another machine may have erased what they are copies of.
        """
        removed = self._cache.remove_unless(referenced, older_than=older_than)
        with self._translated("sweep"):
            if not self._fs.exists(self._root):
                return 0
            for path in self._fs.find(self._root):
                name = path.rpartition("/")[2]
                if not _SHA256.fullmatch(name) or name in referenced:
                    continue
                try:
                    modified = self._fs.modified(path).timestamp()
                except NotImplementedError:
                    modified = time.time()
                if modified < older_than:
                    self._fs.rm_file(path)
                    removed += 1
        return removed

    def claim(self, owner: str) -> None:
        """Belong to one registry; see `Store.claim`."""
        path = f"{self._root}/owner"
        with self._translated("write"):
            if self._fs.exists(path):
                _check_owner(self._fs.cat_file(path).decode(), owner, self.shown)
                return
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(path, owner.encode())

    def _copy(self, source: Any, out: BinaryIO) -> None:
        while True:
            with self._translated("read"):  # else a lost network would be called a full disk
                chunk = source.read(1 << 20)
            if not chunk:
                return
            out.write(chunk)

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except PerennialError:
            raise
        except Exception as error:  # each file system has exceptions of its own
            raise RegistryError(
                f"Could not {verb} the registry's files: {type(error).__name__}: "
                f"{str(error).replace(self._url, self.shown)}.",
                where=self.shown,
                mend="check registry.files, the credentials and the network, then run again",
            ) from error


class LayeredStore:
    """Writes to one store and reads from a second where the first lacks a blob."""

    def __init__(self, upper: Store, lower: Store) -> None:
        self.shown = upper.shown
        self._upper = upper
        self._lower = lower

    def claim(self, owner: str) -> None:
        """Claim the upper store alone."""
        self._upper.claim(owner)

    def put(self, content: Path | bytes) -> str:
        """Keep in the upper store."""
        return self._upper.put(content)

    def fetch(self, sha256: str, *, what: str) -> Path:
        """From the upper store if it is there, else from the lower."""
        store = self._upper if self._upper.has(sha256) else self._lower
        return store.fetch(sha256, what=what)

    def has(self, sha256: str) -> bool:
        """Whether either store has it."""
        return self._upper.has(sha256) or self._lower.has(sha256)

    def remove(self, sha256: str) -> None:
        """Remove from the upper store alone."""
        self._upper.remove(sha256)

    def remove_unless(self, referenced: set[str], *, older_than: float) -> int:
        """Sweep the upper store alone."""
        return self._upper.remove_unless(referenced, older_than=older_than)


def check_name(value: str, *, setting: str) -> str:
    """Refuse what could not be one folder's name.

    Raises:
        ConfigError: The value is not ``[A-Za-z0-9][A-Za-z0-9._-]*``.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ConfigError(
            f"{value!r} cannot be a name here.",
            where=setting,
            mend="start with a letter or digit; go on with letters, digits, '.', '_' and '-'",
        )
    return value


def check_paths(paths: Iterable[str], *, where: str) -> None:
    """Refuse paths that would leave a version's folder, or stand in each other's way.

    Raises:
        RegistryError: A path is absolute, has ``..`` or odd characters, or is another's folder.
    """
    known = set(paths)
    for path in sorted(known):
        parts = path.split("/")
        is_odd = "\\" in path or bool(PureWindowsPath(path).drive) or not path.isprintable()
        folders = {"/".join(parts[:length]) for length in range(1, len(parts))}
        if is_odd or _PARTS & set(parts) or folders & known:
            raise RegistryError(
                f"A version cannot hold a file named {path!r}.",
                where=where,
                mend="use relative paths with '/', without '..', each of one file",
            )


def _check_owner(found: str, owner: str, where: str) -> None:
    if found != owner:
        raise ConfigError(
            "These files belong to another registry, whose sweep would remove this one's.",
            where=f"registry.files={where}",
            mend="name another folder; or remove its file 'owner' if that registry is gone",
        )


def _digest(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return sha256(content).hexdigest()
    try:
        return files.hash_file(content)
    except OSError as error:
        raise StorageError(
            f"A file to store cannot be read: {error.strerror}.", where=str(content)
        ) from error


@contextmanager
def _opened(content: Path | bytes) -> Iterator[BinaryIO]:
    with io.BytesIO(content) if isinstance(content, bytes) else open(content, "rb") as file:
        yield file


def _masked(url: str) -> str:
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@") if password else url


def _missing(what: str, where: str) -> IntegrityError:
    return IntegrityError(
        f"The stored file of {what} is gone.",
        where=where,
        mend="restore it from a backup, or go back: perennial registry rollback",
    )


def _damaged(what: str, where: str) -> IntegrityError:
    return IntegrityError(
        f"The stored file of {what} no longer has the SHA-256 it was stored with.",
        where=where,
        mend="restore it from a backup, or go back: perennial registry rollback",
    )
