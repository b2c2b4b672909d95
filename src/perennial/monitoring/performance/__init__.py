"""How well the champion does: by labels that come late, and before they come."""

from perennial.monitoring.performance.estimated import BLIND, Estimated
from perennial.monitoring.performance.examine import Alarm, Performance, Score, examine_performance
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
    "read",
    "recorded",
    "refuse_backwards",
    "to_bytes",
]
