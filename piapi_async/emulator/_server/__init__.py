"""The service on a socket: connections, latency, faults, files, webhooks, and the live page.

`server.Server` is the entry point; it serves a router in the event loop that starts it, until it is
stopped. What a request means is decided in `_api`, what becomes of a task in `_service`; here it is
only carried out.

May import: _http, _service, _media, _api, faults.
"""
