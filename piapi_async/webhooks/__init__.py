"""Webhooks."""

from ._receiver import WebhookEvent, WebhookReceiver

__all__ = ["WebhookEvent", "WebhookReceiver"]
