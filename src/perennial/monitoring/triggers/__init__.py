"""Why a cycle runs: one class for each ``conf/trigger/*.yaml``."""

from perennial.monitoring.triggers.base import Firing, Past, Situation, Trigger, nameless
from perennial.monitoring.triggers.combined import AllOf, AnyOf
from perennial.monitoring.triggers.drift import Drift
from perennial.monitoring.triggers.limits import Limited
from perennial.monitoring.triggers.performance import Performance
from perennial.monitoring.triggers.schedule import Schedule
from perennial.monitoring.triggers.simple import Continuous, Manual

__all__ = [
    "AllOf",
    "AnyOf",
    "Continuous",
    "Drift",
    "Firing",
    "Limited",
    "Manual",
    "Past",
    "Performance",
    "Schedule",
    "Situation",
    "Trigger",
    "nameless",
]
