"""Promise 1: it never pays twice.

`submitter.Submitter` owns every POST that creates a task, from the claim in the ledger to the
task's id, whatever becomes of its caller; `uploads` brings files to the host first.  It does not
know who waits for the task afterwards.

May import: _http, _text, tasks, errors, policy, stats, _protocol, _verdict, account, _calls,
ledger.
"""
