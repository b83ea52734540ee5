"""Webhooks: tasks that report their end, so that they need not be polled.

`WebhookReceiver` takes deliveries over HTTP; `_event` is one delivery as a value.

May import: _text, tasks, errors, _protocol, _verdict, midjourney, _families, _calls, _wait, ledger, _runtime, client.
"""

from ._event import WebhookEvent
from ._receiver import WebhookReceiver

__all__ = ["WebhookEvent", "WebhookReceiver"]
