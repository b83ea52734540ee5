"""What the service says over HTTP: requests and responses of every protocol, as plain values.

`router.Router` is the entry point: a request and the time in, a response out. Protocols keep no
state of their own: what they share is the `host.Host`, and tasks live in its engine.

May import: _http, _service, _media.
"""
