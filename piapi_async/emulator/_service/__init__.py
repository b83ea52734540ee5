"""The service behind the API: its tasks, from a checked create to their end, without network or clock.

`engine.TaskEngine` is the entry point: it makes, moves and ends tasks when it is told what time it
is. What requests look like on the wire, and what responses say, is not known here.

May import: nothing.
"""
