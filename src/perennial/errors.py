"""What can go wrong on a user's side, each with what, where and how to mend it.

Every error that a user can cause is one of these classes; an invariant of ours is an ``assert``.
"""

from __future__ import annotations

EXIT_PROMOTED = 0
EXIT_FAILED = 1
EXIT_SKIPPED = 10
EXIT_REJECTED = 20
EXIT_INCONCLUSIVE = 21
EXIT_BAD_DATA = 30
EXIT_ALARM = 40


class PerennialError(Exception):
    """A mistake or a failure that one message can explain.

    Args:
        what: What happened, in one sentence.
        where: The file, column, setting or tensor it happened in.
        mend: What to do about it.
    """

    exit_code = EXIT_FAILED

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None) -> None:
        self.what = what
        self.where = where
        self.mend = mend
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.mend:
            lines.append(f"  mend:  {self.mend}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.mend))


def _rebuild(
    kind: type[PerennialError], what: str, where: str | None, mend: str | None
) -> PerennialError:
    return kind(what, where=where, mend=mend)


class ConfigError(PerennialError):
    """A setting is unknown, of the wrong type, contradicts another, or would be ignored."""


class DataError(PerennialError):
    """Rows are missing, malformed, or too few to decide anything (exit code 30)."""

    exit_code = EXIT_BAD_DATA


class CheckpointError(PerennialError):
    """A checkpoint is unreadable, unsafe, or does not fit the model."""


class MethodError(PerennialError):
    """A method cannot work with this module, this history, or another method."""


class TrainingError(PerennialError):
    """Training diverged or could not go on."""


class RegistryError(PerennialError):
    """The registry is unreachable, newer than this release, or lacks what was asked for."""


class ChampionChangedError(RegistryError):
    """Another run promoted meanwhile; this promotion was refused."""


class NumberTakenError(RegistryError):
    """Another run committed a version meanwhile, and took the number that was foreseen."""


class IntegrityError(RegistryError):
    """A stored file no longer has the SHA-256 it was stored with."""


class StorageError(PerennialError):
    """A file could not be written: the disk is full, read-only or gone."""


class NotificationError(PerennialError):
    """Somebody could not be told of a verdict, which stands nevertheless."""


class EvaluationError(PerennialError):
    """Scores are missing, malformed or not comparable; nothing is promoted on them."""


def require_setting(good: bool, where: str, value: object, words: str) -> None:
    """Refuse a setting's value.

    Args:
        good: Whether it is right.
        where: The setting's dotted key.
        value: As given.
        words: What it must be.

    Raises:
        ConfigError: It is not.
    """
    if not good:
        raise ConfigError(
            f"{where.rpartition('.')[2]} is {value!r}; it must be {words}.",
            where=where,
            mend=f"give a value that is {words}",
        )


def first_line(error: BaseException) -> str:
    """What an error says first; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shortened(text: str, most: int = 160) -> str:
    """A text for a message, which may come from a file that means ill."""
    return text if len(text) <= most else f"{text[:most]} …"
