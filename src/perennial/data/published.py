"""The public files that the experiments read: from a folder, or from where they are published.

`PERENNIAL_DATA` names a folder that holds them; without it each is fetched once, at a pinned
revision, and nothing is read whose SHA-256 is another.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from perennial import files
from perennial.errors import DataError, first_line
from perennial.paths import home

PREFIX = "published:"
FOLDER = "PERENNIAL_DATA"
_RAW = "https://raw.githubusercontent.com"
_FASHION = f"{_RAW}/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141"
_CLINC = f"{_RAW}/clinc/oos-eval/828f8093932c8fe6ca7936c3d2e52903b1c523de/data"
_BANKING = f"{_RAW}/PolyAI-LDN/task-specific-datasets/57ec275d8078af65b7731c2a98be812d844a6d6b"
_CALLS = f"{_RAW}/jamjewel/Customer-Subscription/de9b5b6384b599c5b00de2116b08be2bc740188c"
_KDD = f"{_RAW}/potash/brf-example/cb1486bbec7069eec30474bce4bf9478e867e9d2/data"
_FILMS = f"{_RAW}/adrianrfreedman/MovieTweetings/3ae51d9ab4bac513259a36665182d1fd0e7afdf9"


@dataclass(frozen=True)
class Published:
    """Where a file is published, and what it is.

    Attributes:
        url: Any that fsspec opens; of an archive's member ``zip://MEMBER::simplecache::URL``,
            since not every server gives parts of a file.
        sha256: Of its content.
        size: In bytes; no more is read.
    """

    url: str
    sha256: str
    size: int


FILES = {
    "fashion-mnist/train-images-idx3-ubyte.gz": Published(
        f"{_FASHION}/data/fashion/train-images-idx3-ubyte.gz",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        26421880,
    ),
    "fashion-mnist/train-labels-idx1-ubyte.gz": Published(
        f"{_FASHION}/data/fashion/train-labels-idx1-ubyte.gz",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        29515,
    ),
    "fashion-mnist/t10k-images-idx3-ubyte.gz": Published(
        f"{_FASHION}/data/fashion/t10k-images-idx3-ubyte.gz",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        4422102,
    ),
    "fashion-mnist/t10k-labels-idx1-ubyte.gz": Published(
        f"{_FASHION}/data/fashion/t10k-labels-idx1-ubyte.gz",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        5148,
    ),
    "clinc150/data_full.json": Published(
        f"{_CLINC}/data_full.json",
        "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
        2495390,
    ),
    "clinc150/domains.json": Published(
        f"{_CLINC}/domains.json",
        "b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",
        3818,
    ),
    "banking77/train.csv": Published(
        f"{_BANKING}/banking_data/train.csv",
        "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
        839073,
    ),
    "banking77/test.csv": Published(
        f"{_BANKING}/banking_data/test.csv",
        "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
        239961,
    ),
    "bank-marketing/bank-additional-full.csv": Published(
        f"zip://bank-additional/bank-additional-full.csv::simplecache::{_CALLS}/bank-additional.zip",
        "74adfc578bf77a7ff4bb1ba4a9f8709d9e3c6907342959c2c8416847e0afb4d8",
        5834924,
    ),
    "kddcup99/kddcup.data_10_percent.gz": Published(
        f"{_KDD}/kddcup.data_10_percent.gz",
        "7bfaa8cef1350f72842018c32893e2fa4539d57efbb22f998eb74ecefc3da3b4",
        2144893,
    ),
    "kddcup99/corrected.gz": Published(
        f"{_KDD}/corrected.gz",
        "74f0daef49b242badc09f2adbd457dea6a45b4f77177efbd11216d333651044b",
        1409035,
    ),
    "movietweetings-100k/ratings.dat": Published(
        f"{_FILMS}/snapshots/100K/ratings.dat",
        "c0dd868c2632d10002ebc928ddc5345f33adeaa59eca52c2941c26a2c5e36fd6",
        2945101,
    ),
}


def located(path: str) -> str:
    """A path as it is, with ``published:NAME`` replaced by the file or folder it means.

    Args:
        path: Of one's own file or folder, or ``published:`` and a name or folder of `FILES`.

    Returns:
        A path below ``PERENNIAL_DATA`` where that is set, else below ``data`` in
        ``PERENNIAL_HOME``, where every file was fetched and verified.

    Raises:
        DataError: There is no such name, or a file could not be fetched or is another one.
    """
    if not path.startswith(PREFIX):
        return path
    name = path.removeprefix(PREFIX).strip("/")
    if folder := os.environ.get(FOLDER):
        return str(Path(folder, name))
    wanted = [one for one in FILES if one == name or one.startswith(f"{name}/")]
    if not wanted:
        raise DataError(
            f"Nothing is published as {name!r} here.",
            where=path,
            mend="give the path of your own file, or set PERENNIAL_DATA to the folder of the data",
        )
    root = home().absolute() / "data"
    for one in wanted:
        _fetch(FILES[one], root / one)
    return str(root / name)


def _fetch(file: Published, target: Path) -> None:
    if target.is_file() and files.hash_file(target) == file.sha256:
        return
    import fsspec

    try:
        with fsspec.open(file.url, "rb") as stream:
            content = stream.read(file.size + 1)
    # file systems raise what their clients raise
    except Exception as error:
        reason = first_line(error)
        if not reason or reason in file.url:
            reason = type(error).__name__
        raise DataError(
            f"{target.name} could not be fetched: {reason}.",
            where=file.url,
            mend="connect to the network, or set PERENNIAL_DATA to a folder that holds "
            f"{target.parent.name}/{target.name}",
        ) from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(
            f"{target.name} is another file than the one that was published.",
            where=file.url,
            mend="try again later, or set PERENNIAL_DATA to a folder that holds the right one",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(target, content)
