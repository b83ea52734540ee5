"""Webhooks: tasks that report their end, so that they need not be polled.

`WebhookReceiver` takes deliveries over HTTP, `_event` has one delivery as a value, `_proof` tells
whether it is the host's.  It knows
nothing of submissions and waits: whom a delivery is for is found in `_submit.correlation`.

May import: _text, tasks, errors, _protocol, midjourney, unified, _families, _calls, _submit, _runtime, client.
"""

from ._event import WebhookEvent
from ._receiver import WebhookReceiver

__all__ = ["WebhookEvent", "WebhookReceiver"]
