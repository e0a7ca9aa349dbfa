"""The process of ``pdbench web``: one gevent hub for Locust and the page, one thread for the verb, everything ended.

The first Ctrl-C (or SIGTERM) stops a run that is going, has it stored, INVALID, and ends; the second one does not wait.
Servers, engines and workers hang on pipes from this process and end with it in either case.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pdbench.load import shape  # before all else of gevent: imports locust without its patches

import gevent  # isort: skip
from gevent import pywsgi  # isort: skip
from gevent.event import Event  # isort: skip

from pdbench.errors import EXIT_OK, UsageError
from pdbench.fleetspec import FleetSpec
from pdbench.report import charts
from pdbench.web.crew import PageCrew
from pdbench.web.fields import Preset
from pdbench.web.guard import Account, Door, is_loopback
from pdbench.web.locustui import Check, Page, install
from pdbench.web.runs import Runs
from pdbench.web.views import blueprint

_POLL_S = 0.05
_LAST_ANSWERS_S = 1.0

assert shape.VERSION
assert charts.PALETTE  # imported now: a second that a page would else have to wait


@dataclass(frozen=True, slots=True)
class Options:
    """Of the command line. ``account``: of ``--web-login``; ``names``: of ``--web-name``."""

    host: str = "127.0.0.1"
    port: int = 8089
    account: Account | None = None
    names: tuple[str, ...] = ()
    fleet: FleetSpec | None = None
    preset: Preset = field(default_factory=Preset)


def serve(options: Options, check: Check, say: Callable[[str], None]) -> int:
    """Serve until a signal ends it; the exit code. ``check`` resolves what a form comes to, as the command line would.

    Raises ``UsageError`` where a port is taken.
    """
    door = Door.of(options.host, options.names, login=options.account is not None)
    listener = _listener(options)
    crew = PageCrew(options.fleet, lambda text: told(text))
    runs = Runs(crew, say)

    def told(text: str) -> None:
        say(text)
        if runs.screen is not None:
            runs.screen.event(text)

    try:
        crew.hire()
        port = listener.getsockname()[1]
        page = Page(crew.environment, options.host, port, runs, options.preset, login=options.account is not None)
        install(page, runs, options.preset, check, _aside, options.account, door)
        page.flask.register_blueprint(blueprint(runs, _aside))
        server = pywsgi.WSGIServer(listener, page.flask, log=None, error_log=logging.getLogger("pdbench.web"))
        server.start()
        _greet(options, page.port, crew, say)
        _until_told(runs, say)
        server.stop(timeout=_LAST_ANSWERS_S)
    finally:
        runs.close()
        crew.close()
    return EXIT_OK


def _aside(function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
    """In a thread of the hub's pool: the page and the workers are answered meanwhile. Raises what it raises."""

    def attempt() -> tuple[Any, BaseException | None]:
        try:
            return function(*args), None
        except BaseException as error:  # gevent would print it
            return None, error

    found, error = gevent.get_hub().threadpool.apply(attempt)
    if error is not None:
        raise error
    return found


def _listener(options: Options) -> Any:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return pywsgi.WSGIServer.get_listener((options.host, options.port), family=family)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        remedy = "choose another with --web-port, or end what listens there"
        raise UsageError(f"cannot listen: {error.strerror or error}", where=where, remedy=remedy) from None


def _greet(options: Options, port: int, crew: PageCrew, say: Callable[[str], None]) -> None:
    name = f"[{options.host}]" if ":" in options.host else options.host
    say(f"pdbench web: http://{name}:{port}   live charts: http://{name}:{port}/pdbench   (Ctrl-C ends it)")
    if options.fleet is not None and options.fleet.expect:
        say(f"waiting for {options.fleet.expect} workers on {options.fleet.bind}:{crew.workers_port}")
    if not is_loopback(options.host) and options.account is None:
        say("warning: everybody who reaches this address can start load and see results: use --web-login, or a tunnel")
    elif not is_loopback(options.host):
        say("warning: the password travels unencrypted: put a proxy with TLS before it, or use a tunnel")


def _until_told(runs: Runs, say: Callable[[str], None]) -> None:
    """Until a signal, and then until the run that is going is stored; a second signal ends the waiting."""
    asked, insisted = Event(), Event()

    def on_signal() -> None:
        (insisted if asked.is_set() else asked).set()

    handlers = [gevent.signal_handler(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        asked.wait()
        runs.close()
        if runs.busy:
            say("stopping: what was measured is being stored")
        while (runs.busy or runs.checking) and not insisted.is_set():
            gevent.sleep(_POLL_S)
    finally:
        for handler in handlers:
            handler.cancel()
