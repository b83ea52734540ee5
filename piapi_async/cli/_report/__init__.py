"""`piapi-async report`: one page of a run's results, to look at and to choose from.

`_entries` turns lines of results into what the page shows (pure), `_page` puts them into one file
with its style and script, and `_command` is the command, and what `batch --report` calls.
"""
