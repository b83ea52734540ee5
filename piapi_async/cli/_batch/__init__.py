"""`piapi-async batch`: a file of requests, seen through to saved files, whatever happens on the way.

`_source` opens the file, `_file_format` finds out what it is, `_rows` (with `_json_values`) turns its
bytes into rows, `_lines` these into requests, and `_check` reports what is wrong.  `_job` runs them,
`_display` shows progress, `_results` records the outcome of each.
"""
