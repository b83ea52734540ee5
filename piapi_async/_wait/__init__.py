"""Promise 2: waiting is nearly free.

`schedule` decides, in pure functions of the time, what to poll next and what a response does, with
`timing` and `durations` (when), `watch` (one task), `queue` (what is due), `faults` and `trust` (what
to believe) beside it;
`poller.Poller` carries that out with one timer.  It does not know how a task was submitted.

May import: _http, _text, tasks, errors, policy, stats, observe, _protocol, _verdict, _calls.
"""
