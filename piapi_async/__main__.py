"""`python -m piapi_async` and the `piapi-async` command."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        from .cli import cli  # noqa: PLC0415 - so that its absence can be explained
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.exit("piapi-async needs its command line extra: pip install 'piapi_async[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # it is None where the stream is closed
            stream.reconfigure(errors="backslashreplace")  # a letter that it has not must not end a command
    cli(prog_name="piapi-async")


if __name__ == "__main__":
    main()
