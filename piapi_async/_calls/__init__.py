"""One HTTP call.

`sender.Sender` tries and tries again, `throttle` holds every request of a client back where the
host or the user asks for it, `transport` moves bytes and knows whether a request had begun to leave,
over the connections of `connector`, and `deadlines` has the time limits of all requests under way.
What a response means stands in `_verdict`.

May import: _version, _http, _text, tasks, errors, policy, stats, observe, _protocol, _verdict.
"""
