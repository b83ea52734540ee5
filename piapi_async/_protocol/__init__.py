"""Bytes to values and back, for every protocol that a host speaks.

`words` and `refusals` read what a response says, `reading` and `decoding` the task in it, `fields`
and `requests` make what is sent; `family` is what one API is to the client.  All of it is pure: no
I/O, no clock, no randomness.

May import: _http, _text, tasks, errors.
"""
