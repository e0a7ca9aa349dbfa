"""The one way to a terminal: no markup, no emoji codes, no highlighting, and never a crash over an encoding.

What is printed comes from runs and servers, so ``[red]`` and ``:smile:`` are what somebody wrote and no instructions.
A terminal that cannot show a tick shows ``?`` for it; the word stands beside it.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

from rich.console import Console


def console_of(*, color: bool, stderr: bool = False) -> Console:
    """Writes to stdout or stderr. ``color``: whether colours may be used where the terminal has them."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
        stream.reconfigure(errors="replace")
    return Console(stderr=stderr, no_color=not color, highlight=False, markup=False, emoji=False)
