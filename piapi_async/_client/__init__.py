"""What stands behind the public calls of a client, so that `client` itself only names them.

`arguments` checks what a client is made with, `run` is `PiAPI.run`, `files` its `download`
and `read`, `history` turns the pages of `PiAPI.history`, and
`earlier` reads how tasks of an earlier run have ended.

May import: _text, tasks, errors, _protocol, _verdict, account, midjourney, _families, policy, _calls, _wait,
ledger, _submit, downloads, _runtime, handle.
"""
