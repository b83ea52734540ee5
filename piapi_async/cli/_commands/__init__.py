"""How each command is called: its words, options and help; what it does is imported when it is run.

So help and completion need no HTTP client and none of the request classes.  A module here has `COMMANDS`,
by name; `declared` makes one.

May import: click.
"""
