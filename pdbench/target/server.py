"""One server under test: start it, wait until it is ready, read its log's end, stop it for certain.

A pdserve backend binds a free port itself and writes it to a file; a foreign one is given ``{port}`` in its
commands. Either way the process hangs on a pipe from this one, in a group of its own, so that Ctrl-C reaches
the harness alone and nothing survives it. Output goes straight to a log file: no thread, no pipe to drain.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from pdbench import resources
from pdbench.errors import BackendStartError, Interrupted, UsageError
from pdbench.target.backend import Backend
from pdbench.target.http import NoAnswer, Refused, answers, fetch

_POLL_S = 0.1
_STOP_GRACE_S = 15.0
_RUNNING_TIMEOUT_S = 10.0
"""A server said to be running already gets no more than this."""

_PORT = re.compile(r"\{(port\d*)\}")


class Server:
    """Not started by the constructor; ``start`` then ``await_ready``, and ``stop`` in every case."""

    def __init__(self, backend: Backend, log_path: Path) -> None:
        self.backend = backend
        self.log_path = log_path
        self.base_url = backend.base_url or ""
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port_file = log_path.with_suffix(".port")
        self._log_start = 0

    @property
    def alive(self) -> bool:
        """For a server of ours: every process still runs. Another's: it answers."""
        if self._processes:
            return all(process.poll() is None for process in self._processes)
        return not self.backend.started_by_us and _listens(self.base_url)

    def start(self) -> None:
        """Start the processes. Raises ``UsageError`` (their port is in use) or ``BackendStartError``."""
        backend = self.backend
        self._processes = []
        if not backend.started_by_us:
            return
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        if backend.engine == "pdserve":
            self._port_file.unlink(missing_ok=True)
            command = [sys.executable, "-m", "pdserve", "serve", str(backend.path), "--host", "127.0.0.1"]
            self._spawn([*command, "--port", "0", "--port-file", str(self._port_file), "--lifeline"])
            return
        ports: dict[str, int] = {}
        self.base_url = _fill(backend.base_url or "", ports)
        if not ports and (busy := _busy_port(self.base_url)):
            raise UsageError(
                f"port {busy} is in use: something answers at {self.base_url} already",
                where=str(backend.path),
                remedy="stop it, leave out 'launch' to use it, or write {port} for a free one",
            )
        for template in backend.launch:
            line = _fill(template, ports)
            if backend.source is not None:
                line = f"cd {shlex.quote(str(backend.source))} && {line}"
            self._spawn([sys.executable, "-m", "pdbench.target.lifeline", "/bin/sh", "-c", line])

    def _spawn(self, command: list[str]) -> None:
        with self.log_path.open("ab") as log:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=resources.subprocess_env(self.backend.source),
                )
            except OSError as error:
                raise BackendStartError(f"{self.backend.name} did not start: {error}") from error
        self._processes.append(process)

    def await_ready(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Poll until the server is ready.

        Raises ``BackendStartError`` with the server's own last lines when it dies or takes too long, and
        ``Interrupted`` when asked to stop.
        """
        limit_s = self.backend.ready_timeout_s if self.backend.started_by_us else _RUNNING_TIMEOUT_S
        deadline = time.monotonic() + limit_s
        while True:
            if self._ready():
                return
            if should_stop():
                raise Interrupted(f"interrupted while {self.backend.name} was starting")
            if self._processes and not self.alive:
                raise self._start_error("ended while starting")
            if time.monotonic() > deadline:
                raise self._start_error(f"was not ready within {limit_s:g} s")
            time.sleep(_POLL_S)

    def _ready(self) -> bool:
        if self.backend.engine == "pdserve":
            try:
                bound = json.loads(self._port_file.read_text(encoding="utf-8"))
                self.base_url = f"http://{bound['host']}:{bound['port']}"
            except (OSError, ValueError, KeyError):
                return False
            return answers(f"{self.base_url}/ready")
        if self.backend.ready_path:
            return answers(self.base_url + self.backend.ready_path)
        return _foreign_ready(self.base_url, self.backend.api_key_env)

    def _start_error(self, what: str) -> BackendStartError:
        if not self._processes:
            return BackendStartError(
                f"nothing that serves OpenAI's API answers at {self.base_url}",
                where=self.backend.name,
                remedy="start it first, or check host and port",
            )
        lines = self.last_lines() or ["(it printed nothing)"]
        shown = "\n  ".join(["its last lines:", *(f"  {line}" for line in lines)])
        return BackendStartError(f"the server {what}", where=self.backend.name, remedy=shown)

    def last_lines(self, count: int = 20) -> list[str]:
        """The end of what the server printed since its last start."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(0, os.SEEK_END)
                size = log.tell()
                log.seek(max(self._log_start, size - 64_000))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return []
        return text.splitlines()[-count:]

    def begin_stop(self) -> None:
        """Ask every process to end, without waiting, so that several servers can end at once."""
        for process in reversed(self._processes):
            with contextlib.suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()
                process.terminate()

    def stop(self) -> None:
        """Ask every process to end, wait, then kill what is left of its group. Never raises."""
        self.begin_stop()
        deadline = time.monotonic() + _STOP_GRACE_S
        for process in reversed(self._processes):
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_S / 2)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5.0)
        self._processes = []
        self._port_file.unlink(missing_ok=True)


def _foreign_ready(base_url: str, api_key_env: str | None) -> bool:
    """``/health`` says whether a server is ready; one that has no such path is asked for its models."""
    key = os.environ.get(api_key_env) if api_key_env else None
    try:
        fetch(f"{base_url}/health", api_key=key, timeout_s=2.0)
    except Refused as error:
        if error.status not in (401, 403, 404, 405, 501):
            return False
    except NoAnswer:
        return False
    return answers(f"{base_url}/v1/models", api_key=key, timeout_s=5.0)


def _fill(text: str, ports: dict[str, int]) -> str:
    """Replace ``{port}``, ``{port2}``, ... by free ports, the same name by the same port."""

    def one(match: re.Match[str]) -> str:
        return str(ports.setdefault(match[1], free_port()))

    return _PORT.sub(one, text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(base_url: str) -> bool:
    parts = urlsplit(base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=2.0):
            return True
    except OSError:
        return False


def _busy_port(base_url: str) -> int | None:
    return urlsplit(base_url).port if _listens(base_url) else None
