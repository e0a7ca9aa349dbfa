"""The server's log: one line an event, on standard error."""

from __future__ import annotations

import sys


def log(text: str) -> None:
    """Writes ``pdserve: text`` at once."""
    sys.stderr.write(f"pdserve: {text}\n")
    sys.stderr.flush()
