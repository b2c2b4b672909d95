"""Weights & Biases: a mirror of every cycle that never prompts and never stops training."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.errors import ConfigError
from perennial.masking import mask_text, plain

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

MODES = ("online", "offline", "disabled")

_log = logging.getLogger(__name__)
_INIT_SECONDS = 30.0
_NOT_IN_NAMES = re.compile(r"[^\w.-]+", re.ASCII)


class NoTracker:
    """Records nothing."""

    def start(
        self,
        *,
        name: str,
        group: str,
        job_type: str,
        config: Mapping[str, Any],
        folder: Path,
        tags: Sequence[str] = (),
    ) -> None:
        """Do nothing."""

    def logger(self, prefix: str = "") -> Logger | None:
        """No logger."""
        return None

    def summary(self, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Do nothing."""

    def tag(self, word: str) -> None:
        """Do nothing."""

    def use(
        self,
        *,
        name: str,
        kind: str,
        files: Mapping[str, Path],
        aliases: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:
        """Do nothing."""

    def artifact(
        self,
        *,
        name: str,
        kind: str,
        files: Mapping[str, Path],
        aliases: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:
        """Do nothing."""

    def identity(self) -> dict[str, str | None]:
        """All ``None``."""
        return {"run_id": None, "url": None, "directory": None}

    def finish(self, exit_code: int) -> None:
        """Do nothing."""


class WandbTracker:
    """One W&B run per cycle.

    Args:
        project: W&B project.
        entity: Team or user; ``None`` for the account's default.
        mode: ``online``, ``offline`` or ``disabled``; ``None`` takes what the environment or
            ``wandb offline`` set, else online where a key is stored, else offline.
        log_artifacts: Whether model versions are uploaded too.
        finish_seconds: Longest wait for uploads when a run ends, above 0; what is left over then
            lies on disk for ``wandb sync``, and the cycle goes on to its end.

    Raises:
        ConfigError: The mode is unknown, or the wait is not above 0.
    """

    def __init__(
        self,
        *,
        project: str = "perennial",
        entity: str | None = None,
        mode: str | None = None,
        log_artifacts: bool = True,
        finish_seconds: float = 1800.0,
    ) -> None:
        if mode is not None and mode not in MODES:
            raise ConfigError(
                f"Unknown W&B mode {mode!r}.",
                where="tracking.mode",
                mend=f"use one of {', '.join(MODES)}, or null",
            )
        if not finish_seconds > 0:
            raise ConfigError(
                f"The wait for W&B's uploads is {finish_seconds!r}.",
                where="tracking.finish_seconds",
                mend="give seconds above 0",
            )
        self._finish_seconds = float(finish_seconds)
        self._project = project
        self._entity = entity
        self._mode = mode
        self._log_artifacts = log_artifacts
        self._run: Any = None
        self._identity: dict[str, str | None] = NoTracker().identity()

    def start(
        self,
        *,
        name: str,
        group: str,
        job_type: str,
        config: Mapping[str, Any],
        folder: Path,
        tags: Sequence[str] = (),
    ) -> None:
        """Open a run under ``folder``; where W&B cannot be reached, an offline one."""
        from lightning.pytorch.utilities import rank_zero_only

        self.finish(exit_code=0)
        self._identity = NoTracker().identity()
        # Other ranks of one job would each open a run of their own.
        if getattr(rank_zero_only, "rank", 0) != 0:
            return
        folder = folder.absolute()
        arguments = {
            "project": self._project,
            "entity": self._entity,
            "name": name,
            "group": group,
            "job_type": job_type,
            "config": plain(config),
            "dir": str(folder),
            "tags": list(tags),
        }
        try:
            # W&B silently falls back to the system's temporary folder where this one is missing.
            folder.mkdir(parents=True, exist_ok=True)
            mode = resolve_mode(self._mode)
            self._run = _init(arguments, mode=mode, finish_seconds=self._finish_seconds)
            self._run.config.update(_beside(arguments["config"], self._run.config))
            self._run.define_metric("trainer/global_step")
            self._run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        except Exception as error:
            _warn("This run is not tracked", error)
            return
        if mode != "disabled":
            self._identity = {
                "run_id": self._run.id,
                "url": None if self._run.offline else self._run.url,
                # `Run.dir` is the run's own `files` folder; `wandb sync` wants the one above.
                "directory": str(Path(self._run.dir).parent),
            }

    def logger(self, prefix: str = "") -> Logger | None:
        """A Lightning logger into this run, or ``None`` without one."""
        return None if self._run is None else _lightning_logger(self._run, prefix)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Record final values in the run's summary."""
        if self._run is not None:
            with _warned("W&B did not take the summary"):
                self._run.summary.update(plain(values))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table of plain values; one without rows is left out."""
        if self._run is not None and rows:
            with _warned(f"W&B did not take the table {name}"):
                import wandb

                table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
                self._run.log({name: table})

    def tag(self, word: str) -> None:
        """Add a tag to the run."""
        if self._run is not None:
            with _warned(f"W&B did not take the tag {word}"):
                self._run.tags = tuple(dict.fromkeys([*(self._run.tags or ()), word]))

    def use(
        self,
        *,
        name: str,
        kind: str,
        files: Mapping[str, Path],
        aliases: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:
        """Record an artifact as an input of this run.

        It is logged with the mark that `wandb.Run.use_artifact` gives to one that is not in W&B
        yet: equal files are the version that is there already, and offline, where ``use_artifact``
        itself raises, the mark is kept for ``wandb sync``.
        """
        if self._run is not None and self._log_artifacts:
            with _warned(f"W&B did not take the artifact {name}"):
                self._run._log_artifact(
                    draft(name, kind, files, metadata),
                    aliases=list(aliases),
                    is_user_created=True,
                    use_after_commit=True,
                )

    def artifact(
        self,
        *,
        name: str,
        kind: str,
        files: Mapping[str, Path],
        aliases: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:
        """Mirror files as one artifact of this run."""
        if self._run is not None and self._log_artifacts:
            with _warned(f"W&B did not take the artifact {name}"):
                self._run.log_artifact(draft(name, kind, files, metadata), aliases=list(aliases))

    def identity(self) -> dict[str, str | None]:
        """The run's ``run_id``, ``url`` (online only) and local ``directory``."""
        return dict(self._identity)

    def finish(self, exit_code: int) -> None:
        """Close the run; calling it again does nothing."""
        run, self._run = self._run, None
        if run is not None:
            with _warned("W&B did not close the run"):
                run.finish(exit_code=exit_code)


def draft(name: str, kind: str, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> Any:
    """An artifact that is not in W&B yet; W&B reads its files where they lie, which must stay."""
    import wandb

    artifact = wandb.Artifact(collection(name), type=kind, metadata=plain(metadata))
    for inside, path in files.items():
        artifact.add_file(str(path), name=inside, policy="immutable")
    return artifact


def collection(name: str) -> str:
    """A name as W&B takes it for a collection of artifacts."""
    return _NOT_IN_NAMES.sub("-", name)


def _beside(config: Mapping[str, Any], taken: Any) -> dict[str, Any]:
    """Settings of groups whose own name a sweep has taken, ``method=ewc`` say, by dotted names."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and not isinstance(taken.get(key), Mapping):
            found |= _dotted(value, f"{key}.")
    return {key: value for key, value in found.items() if key not in taken}


def _dotted(value: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        nested = isinstance(inner, Mapping)
        flat |= _dotted(inner, f"{prefix}{key}.") if nested else {f"{prefix}{key}": inner}
    return flat


def resolve_mode(mode: str | None) -> str:
    """Decide the mode without prompting; see `WandbTracker`.

    Returns:
        ``online`` only where there is a key, so that W&B has nothing to ask for.
    """
    import wandb

    wanted = mode or os.environ.get("WANDB_MODE") or None
    settings = wandb.setup().settings
    if wanted is None and settings.mode != "online":
        wanted = settings.mode
    wanted = {"dryrun": "offline", "run": "online"}.get(wanted or "", wanted)
    if wanted in ("offline", "disabled"):
        return wanted
    if _has_key(settings):
        return "online"
    if wanted == "online":
        _log.warning("W&B has no API key for %s: this run is offline.", settings.base_url)
    return "offline"


def _has_key(settings: Any) -> bool:
    import wandb
    from wandb.sdk.lib import wbauth

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        return bool(settings.api_key or wbauth.read_netrc_auth(host=settings.base_url))
    except wandb.Error as error:
        _warn("W&B's stored key is unusable", error)
        return False


def _init(arguments: Mapping[str, Any], *, mode: str, finish_seconds: float) -> Any:
    import wandb

    def settings() -> Any:
        # W&B records the command line, where a registry's URL may carry its password.
        secret = any(mask_text(argument) != argument for argument in sys.argv)
        timeout = float(os.environ.get("WANDB_INIT_TIMEOUT", _INIT_SECONDS))
        return wandb.Settings(
            silent=True,
            console="off",
            init_timeout=timeout,
            finish_timeout=finish_seconds,
            x_disable_meta=secret,
        )

    def begin(chosen: Any) -> Any:
        return wandb.init(**arguments, mode=chosen, reinit="finish_previous", settings=settings())

    try:
        return begin(mode)
    except Exception as error:
        if mode != "online":
            raise
        _warn("W&B cannot be reached, so this run is offline (`wandb sync` uploads it)", error)
        return begin("offline")


def _lightning_logger(run: Any, prefix: str) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    class MaskingLogger(WandbLogger):
        # Lightning's "-" would turn the prefix "bootstrap/" into "bootstrap/-loss".
        LOGGER_JOIN_CHAR = ""

        def log_hyperparams(self, params: Any) -> None:
            values = params if isinstance(params, Mapping) else vars(params)
            super().log_hyperparams(plain(values))

    return MaskingLogger(experiment=run, prefix=prefix)


@contextmanager
def _warned(what: str) -> Iterator[None]:
    """No trouble of a tracker's may stop a cycle; it becomes a line."""
    try:
        yield
    except Exception as error:
        _warn(what, error)


def _warn(what: str, error: Exception) -> None:
    reason = mask_text(" ".join(str(error).split())) or type(error).__name__
    _log.warning("%s: %s", what, reason)
