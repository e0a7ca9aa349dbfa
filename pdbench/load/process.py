"""The engine's process as its parent sees it: start, messages, end. Waits give way to other greenlets.

The engine runs in a session of its own, so that Ctrl-C reaches the parent only and the engine can flush; its
stderr goes to a file, so that it can never block; closing its stdin ends it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO

import msgspec

from pdbench import resources
from pdbench.load.delta import FromEngine, ToEngine
from pdbench.load.job import Job

_CHUNK = 1 << 16
_STDERR_BYTES = 1 << 16


class EngineProcess:
    """``python -m pdbench.load.engine`` with the job already on its way."""

    def __init__(self, job: Job) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pdbench.load.engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=resources.own_env(),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in = self._process.stdin.fileno()
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._rest = b""
        self._decode = msgspec.json.Decoder(FromEngine).decode
        self.eof = False
        self._write(msgspec.json.encode(job) + b"\n")

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, command: ToEngine) -> None:
        """Say something; an engine that is gone does not hear it."""
        self._write(msgspec.json.encode(command) + b"\n")

    def _write(self, data: bytes) -> None:
        from gevent.socket import wait_write

        view = memoryview(data)
        while view and self._in >= 0:  # a number that was closed may be somebody else's by now
            try:
                view = view[os.write(self._in, view) :]
            except BlockingIOError:
                wait_write(self._in, timeout=30.0)
            except BrokenPipeError:
                return  # it is dead: its output will end, and its stderr says why

    def receive(self, wait_s: float) -> list[FromEngine]:
        """Messages that came within ``wait_s``, perhaps none. Sets ``eof`` when there will be no more."""
        from gevent.socket import wait_read

        with contextlib.suppress(TimeoutError):
            wait_read(self._out, timeout=wait_s)
        try:
            data = os.read(self._out, _CHUNK)
        except BlockingIOError:
            return []
        if not data:
            self.eof = True
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [self._decode(line) for line in lines]

    def end(self, grace_s: float) -> int:
        """Close its stdin, wait, kill what is left; the exit status."""
        import gevent

        self._in = -1
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        limit = time.monotonic() + grace_s
        while self._process.poll() is None and time.monotonic() < limit:
            gevent.sleep(0.005)
        if self._process.poll() is None:
            self.kill()
        return self._process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def last_lines(self, count: int = 20) -> list[str]:
        """The end of what it wrote to stderr."""
        return last_lines(self._stderr, count)

    def close(self) -> None:
        self._stderr.close()


def last_lines(said: IO[bytes], count: int = 20) -> list[str]:
    """The end of what a process has written to a file so far. Its place in the file, which we share, stays its own."""
    size = os.fstat(said.fileno()).st_size
    data = os.pread(said.fileno(), _STDERR_BYTES, max(0, size - _STDERR_BYTES))
    return data.decode("utf-8", "replace").splitlines()[-count:]
