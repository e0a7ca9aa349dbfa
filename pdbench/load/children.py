"""Local workers: ``--processes N`` starts N of ``python -m pdbench worker`` on a port of the loopback.

Each hangs on its starter by a pipe: when that closes, in whatever way this process ends, the worker ends, and its
engine with it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO

from pdbench import resources
from pdbench.fleetspec import LOOPBACK
from pdbench.load.process import last_lines

_GRACE_S = 5.0


class Child:
    """One local worker."""

    def __init__(self, port: int) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pdbench", "worker", "--master", f"{LOOPBACK}:{port}", "--lifeline"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            env=resources.own_env(),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def gone(self) -> str:
        """How it ended; ``""`` while it lives."""
        status = self._process.poll()
        if status is None:
            return ""
        how = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"the process was {how}" if status < 0 else f"the process {how}"

    def last_lines(self, count: int = 20) -> list[str]:
        return last_lines(self._said, count)

    def begin_stop(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def stop(self) -> None:
        """It has been told to end, by the master and by its pipe; wait, then insist."""
        limit = time.monotonic() + _GRACE_S
        while self._process.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._said.close()


class Children:
    """``count`` local workers, started again where one has died."""

    def __init__(self, count: int, port: int) -> None:
        self._port = port
        self._dead: dict[int, str] = {}
        self._all = [Child(port) for _ in range(count)]

    def revive(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Replace those that ended; ``say`` is told how, with their last words."""
        for place, child in enumerate(self._all):
            if how := child.gone:
                self._dead[child.pid] = how
                say("\n  ".join([f"local worker {child.pid}: {how}; another is started", *child.last_lines(5)]))
                child.begin_stop()
                child.stop()
                self._all[place] = Child(self._port)

    def how_gone(self, pid: int) -> str:
        """How the one with this pid ended; ``""`` while it lives, or if it is none of ours."""
        return self._dead.get(pid) or next((child.gone for child in self._all if child.pid == pid), "")

    def failed(self) -> str:
        """Why it is no use to wait for them: one has ended already, with its last words."""
        for child in self._all:
            if child.gone:
                return "\n  ".join([child.gone, *child.last_lines(5)])
        return ""

    def stop(self) -> None:
        for child in self._all:
            child.begin_stop()
        for child in self._all:
            child.stop()
