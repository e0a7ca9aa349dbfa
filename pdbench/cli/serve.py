"""``pdbench serve BACKEND``: start a backend in the foreground, until Ctrl-C."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import click

from pdbench.cli.echo import note

if TYPE_CHECKING:
    from pdbench.target.backend import Backend

DEFAULT_PORT = 8000


@click.command("serve")
@click.argument("backend")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help=f"Default: the YAML's, else {DEFAULT_PORT}.")
def command(backend: str, host: str, port: int | None) -> int:
    """Start BACKEND in the foreground.

    This process becomes the server, so Ctrl-C and signals reach it directly.
    """
    from pdbench.errors import UsageError
    from pdbench.target.backend import resolve_backend

    found = resolve_backend(backend)
    if found.simulated:
        raise UsageError(
            f"{found.name} has a cost model and runs on the virtual clock only",
            remedy=f"pdbench simulate {backend} --workload ...",
        )
    if found.engine == "pdserve":
        chosen = port if port is not None else int(found.data.get("port") or DEFAULT_PORT)
        _refuse_busy(host, chosen)
        _become_pdserve(found, host, chosen)
    if not found.launch:
        raise UsageError(f"{found.name} has nothing to start", remedy="its YAML has no 'launch'")
    if port is not None:
        raise UsageError("a backend with 'launch' has its port in its YAML", where="--port")
    return _run_launched(found)


def _refuse_busy(host: str, port: int) -> None:
    from pdbench.errors import UsageError

    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            where="--port",
            remedy="choose another one; 0 takes any free one",
        ) from error


def _become_pdserve(backend: Backend, host: str, port: int) -> None:
    from pdbench.resources import subprocess_env

    args = ["-m", "pdserve", "serve", str(backend.path), "--host", host, "--port", str(port)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *args], subprocess_env())


def _run_launched(backend: Backend) -> int:
    import tempfile
    import time
    from pathlib import Path

    from pdbench.errors import EXIT_CRASH, EXIT_OK
    from pdbench.stopping import StopFlag
    from pdbench.target.server import Server

    with tempfile.TemporaryDirectory(prefix="pdbench-serve-") as folder, StopFlag() as stop:
        server = Server(backend, Path(folder) / f"{backend.name}.log")
        try:
            server.start()
            note(f"{backend.name}: starting, log in {server.log_path}")
            server.await_ready(stop)
            note(f"{backend.name}: ready at {server.base_url}; Ctrl-C ends it")
            while not stop() and server.alive:
                time.sleep(0.2)
            if stop():
                return EXIT_OK
            note("\n".join([f"{backend.name} ended by itself; its last lines:", *server.last_lines()]))
            return EXIT_CRASH
        finally:
            server.stop()
