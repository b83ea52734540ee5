"""LegNext's protocol, ``/api/v1/…``: verbs with Midjourney's words, one read per task, a balance.

`requests` makes what is sent, `tasks` reads what comes back, and `piapi_async.legnext` is what users
import.  All of it is pure.

The wire was read off the vendor's pages (docs.legnext.ai), its OpenAPI files and its Python package
0.3.0, which contradict each other in places; a comment says which of them is believed.

May import: _http, _text, tasks, errors, _protocol, _verdict, account, midjourney.
"""
