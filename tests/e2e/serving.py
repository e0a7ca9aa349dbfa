"""A real pdserve in a process of its own, for end-to-end tests: started, awaited, and gone afterwards.

    with serving(CHECKOUT / "backends" / "disaggregated.yaml") as server:
        reply = server.complete("one two three", max_tokens=8)
        assert server.state()["roles"]["prefill"]["decode_steps"] == 0

The server hangs on a lifeline (its standard input), so it ends with the test even if the test is killed. On
leaving, the pipe is closed and the server has to end by itself, workers included; a test whose server must
be killed fails, as does one whose worker processes outlive it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.client import Client

CHECKOUT = Path(__file__).resolve().parents[2]
START_S = 90.0  # two cores, building and packing weights beside other tests
STOP_S = 15.0
POLL_S = 0.02
LAST_LINES = 20


class Serving(Client):
    """A running server: its process, its log, and the ways to talk to it."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        super().__init__(port)
        self.process = process
        self._log = log

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", errors="replace")

    def state(self) -> dict[str, Any]:
        document: dict[str, Any] = self.get("/admin/state").json
        return document

    def lifecycles(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.get("/admin/requests").json["requests"]
        return rows

    def steps(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.get("/admin/steps").json["steps"]
        return rows

    def clear(self) -> None:
        assert self.post("/admin/clear", {}).status == 200


@contextmanager
def serving(
    backend: Path | dict[str, Any], *, ready: bool = True, start_s: float = START_S, stop_s: float = STOP_S
) -> Iterator[Serving]:
    """Serve a backend file, or a backend given as plain data, on a free port of 127.0.0.1.

    With ``ready`` False, yields as soon as the port is bound. Raises ``AssertionError`` with the server's own
    last lines if it dies or is not ready within ``start_s``, or does not end within ``stop_s`` by itself.
    """
    with tempfile.TemporaryDirectory(prefix="pdserve-test-") as place:
        folder = Path(place)
        file = backend if isinstance(backend, Path) else _written(backend, folder)
        port_file, log = folder / "port.json", folder / "server.log"
        process = _start(file, port_file, log)
        children: list[psutil.Process] = []
        try:
            server = Serving(_port(process, port_file, log, start_s), process, log)
            if ready:
                _await_ready(server, start_s)
            children = _children(process)
            yield server
        finally:
            _stop(process, children or _children(process), log, stop_s)


def _written(backend: dict[str, Any], folder: Path) -> Path:
    file = folder / "backend.yaml"
    file.write_text(json.dumps(backend), "utf-8")  # JSON is YAML
    return file


def _start(file: Path, port_file: Path, log: Path) -> subprocess.Popen[bytes]:
    address = ["--host", "127.0.0.1", "--port", "0", "--port-file", str(port_file)]
    path = os.pathsep.join(p for p in (str(CHECKOUT / "backends"), os.environ.get("PYTHONPATH")) if p)
    with log.open("wb") as sink:
        return subprocess.Popen(
            [sys.executable, "-m", "pdserve", "serve", str(file), *address, "--lifeline"],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,
        )


def _port(process: subprocess.Popen[bytes], port_file: Path, log: Path, start_s: float) -> int:
    end = time.monotonic() + start_s
    while not port_file.exists():
        _check_alive(process, log)
        assert time.monotonic() < end, f"no port within {start_s:g} s; its last lines:\n{_tail(log)}"
        time.sleep(POLL_S)
    return int(json.loads(port_file.read_text())["port"])


def _await_ready(server: Serving, start_s: float) -> None:
    end = time.monotonic() + start_s
    while True:
        _check_alive(server.process, server._log)
        reply = server.get("/ready")
        if reply.status == 200:
            return
        reason = reply.raw.decode(errors="replace")
        assert time.monotonic() < end, f"not ready within {start_s:g} s: {reason}\n{_tail(server._log)}"
        time.sleep(POLL_S)


def _check_alive(process: subprocess.Popen[bytes], log: Path) -> None:
    code = process.poll()
    assert code is None, f"the server ended with code {code} while starting; its last lines:\n{_tail(log)}"


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _stop(process: subprocess.Popen[bytes], children: list[psutil.Process], log: Path, stop_s: float) -> None:
    """Close the lifeline and see the server and its workers end; else kill them and fail."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(stop_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: nobody else is in this group
        process.wait()
        raise AssertionError(f"the server outlived its lifeline by {stop_s:g} s:\n{_tail(log)}") from None
    _, alive = psutil.wait_procs(children, timeout=stop_s)
    for child in alive:
        child.kill()
    assert not alive, f"worker processes outlived their server: {alive}\n{_tail(log)}"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-LAST_LINES:])
