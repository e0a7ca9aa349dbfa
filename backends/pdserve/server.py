"""``python -m pdserve serve``: the HTTP face and the cluster behind it, in one process, until told to stop.

The port is bound first, so a port in use is known before any model is built; ``/health`` answers at once and
``/ready`` when every worker is. SIGINT, SIGTERM and (with ``lifeline``) the end of standard input stop it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from pathlib import Path

import msgspec
from aiohttp import web

from pdserve.api import build_app, make_runner
from pdserve.cluster import Cluster, StartError
from pdserve.config import BackendConfig, ConfigError, Problem
from pdserve.inject import Dropper
from pdserve.log import log

_BACKLOG = 1024


def serve(config: BackendConfig, *, host: str, port: int, port_file: Path | None = None, lifeline: bool = False) -> int:
    """Serves until stopped; returns the exit code. Raises ``ConfigError`` for a port in use or a bad model."""
    if config.cost_model is not None:
        raise ConfigError(
            Problem(("cost_model",), "this backend exists on the virtual clock only", "use: pdbench simulate")
        )
    listener = bind(host, port)
    return asyncio.run(_serve(config, listener, port_file, lifeline))


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket. Raises ``ConfigError`` when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            Problem(("port",), f"cannot listen on {host}:{port}: {error.strerror}", "choose another port")
        ) from None
    return listener


async def _serve(config: BackendConfig, listener: socket.socket, port_file: Path | None, lifeline: bool) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if lifeline:
        threading.Thread(target=_lifeline, args=(loop, stop), daemon=True).start()
    cluster = Cluster(config)
    runner = make_runner(build_app(cluster, Dropper(config.inject)))
    try:
        await runner.setup()
        await web.SockSite(runner, listener, backlog=_BACKLOG).start()
        host, port = listener.getsockname()[:2]
        if port_file:
            _write_whole(port_file, {"host": host, "port": port})
        log(f"{config.name} listens on http://{host}:{port}, starting {len(config.workers)} workers")
        started = asyncio.create_task(cluster.start())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({started, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            started.result()
            log(f"{config.name} is ready")
        await stopped
        started.cancel()
    except StartError as error:
        log(f"cannot start: {error}")
        return 1
    finally:
        await runner.cleanup()
        await cluster.stop()
    return 0


def _write_whole(path: Path, document: dict[str, object]) -> None:
    """A reader sees all of the file or none of it."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(msgspec.json.encode(document))
    part.replace(path)


def _lifeline(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stop.set)
