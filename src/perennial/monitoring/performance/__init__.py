"""How well the champion does: by labels that come late, and before they come."""

from perennial.monitoring.performance.estimated import BLIND, Estimated
from perennial.monitoring.performance.examine import (
    Alarm,
    Performance,
    Score,
    examine_performance,
    mean_score,
)
from perennial.monitoring.performance.record import (
    Joined,
    Record,
    join,
    read,
    recorded,
    refuse_backwards,
    to_bytes,
)
from perennial.monitoring.performance.stream import HeldOut, Rhythm, Stream

__all__ = [
    "BLIND",
    "Alarm",
    "Estimated",
    "HeldOut",
    "Joined",
    "Performance",
    "Record",
    "Rhythm",
    "Score",
    "Stream",
    "examine_performance",
    "join",
    "mean_score",
    "read",
    "recorded",
    "refuse_backwards",
    "to_bytes",
]
