"""Run a command that must not outlive its starter: ``python -m pdbench.target.lifeline COMMAND...``.

A server that is not ours knows nothing of the harness. This small parent starts it in a process group of its
own and watches its own standard input: when that closes, because the harness ended in whatever way (SIGKILL
included), the whole group is asked to end, and killed if it does not.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

GRACE_S = 10.0
"""How long a server may take to end by itself; vLLM needs a few seconds to free its devices."""

_POLL_S = 0.2


def main(command: list[str]) -> int:
    """Run ``command`` until it ends or stdin closes; the exit status is the command's."""
    stop: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while child.poll() is None and not stop:
        if select.select([0], [], [], _POLL_S)[0] and not os.read(0, 4096):
            break
    _end_group(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end_group(child: subprocess.Popen[bytes]) -> None:
    _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_S / 4)
    _signal_group(child.pid, signal.SIGKILL)  # what is left of the group, also after a clean end
    child.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
