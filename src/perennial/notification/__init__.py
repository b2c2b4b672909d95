"""Tell other systems what a cycle came to; trouble here never changes a verdict."""

from perennial.notification.base import STATUSES, Notifier, Silent
from perennial.notification.command import Command
from perennial.notification.webhook import Webhook

__all__ = ["STATUSES", "Command", "Notifier", "Silent", "Webhook"]
