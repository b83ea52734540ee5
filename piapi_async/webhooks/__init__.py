"""Webhooks."""

from ._event import WebhookEvent
from ._receiver import WebhookReceiver

__all__ = ["WebhookEvent", "WebhookReceiver"]
