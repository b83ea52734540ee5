"""Promise 1: it never pays twice.

`submitter.Submitter` owns every POST that creates a task, from the claim in the ledger to the
task's id, even if its caller leaves; `ending` has what follows a response.  Where that was lost,
`finder` looks for the task, in what `history` reads, for the submissions under way and the
`unknown_rows` of a ledger; `recovery` decides.  `submission` has the states of one as a table,
`claim` its row in the ledger, `correlation` tells which submission a webhook delivery belongs to,
`open_submissions` which one of another process, and `uploads` brings files to the host first.  It
knows nothing of HTTP servers: `webhooks` hands deliveries in.

May import: _http, _text, tasks, errors, policy, stats, observe, _protocol, _verdict, _families,
account, _calls, _wait, ledger.
"""
