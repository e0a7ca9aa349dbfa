"""A worker: it takes its share of each run from the master, drives one engine with it, and sends back what came.

    Worker(runner).serve()

``runner`` is Locust's WorkerRunner, connected. The worker stays for many runs and ends when the master quits; a
master that is silent for some seconds has vanished: engines are stopped, and the process ends with an error.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import gevent
import msgspec
from gevent.socket import wait_read
from msgspec.structs import replace

from pdbench.errors import Interrupted, PdbenchError, UsageError
from pdbench.load import shape
from pdbench.load.delta import Delta, Ready
from pdbench.load.drive import Drive
from pdbench.load.job import Job
from pdbench.load.messages import (
    HELLO,
    PROTOCOL,
    REFUSED,
    TALK,
    WELCOME,
    WHO,
    Ack,
    Counts,
    EngineReady,
    EngineRefused,
    Go,
    Halt,
    JobPart,
    JournalPart,
    Ping,
    Pong,
    Repace,
    RunDone,
    our_hello,
    pack,
    unpack_to_worker,
)  # fmt: skip
from pdbench.load.ship import JournalTail, Parcel

MASTER_LIMIT_S = 8.0
"""A master answers a heartbeat a second; so long without one, it is gone."""
_SHIP_LIMIT_S = 120.0
_TICK_S = 0.2


class Worker:
    """``say`` is told what happens, one line each. ``keys``: the environment variables that jobs may name as their
    API key, by default none, because a master is not authenticated; None: any, of a master that started us."""

    def __init__(
        self, runner: Any, say: Callable[[str], None] = lambda _: None, keys: Collection[str] | None = ()
    ) -> None:
        self._runner = runner
        self._say = say
        self._keys = keys
        self._folder = tempfile.TemporaryDirectory(prefix="pdbench-worker-")
        self._parcel: tuple[str, Parcel] | None = None
        self._play: _Play | None = None
        self._welcome = False
        self._refused = ""
        self._heard = time.monotonic()
        runner.environment.events.heartbeat_received.add_listener(self._heartbeat)
        for name, listener in {
            WHO: self._who, WELCOME: self._welcomed, REFUSED: self._was_refused, TALK: self._talk
        }.items():  # fmt: skip
            runner.register_message(name, listener)
        self._hello()

    # ---- the handshake

    def _hello(self) -> None:
        self._runner.send_message(HELLO, msgspec.to_builtins(our_hello()))

    def _who(self, **_: Any) -> None:
        self._hello()

    def _welcomed(self, msg: Any, **_: Any) -> None:
        ours, theirs = our_hello(), msg.data or {}
        if (theirs.get("version"), theirs.get("protocol")) != (ours.version, PROTOCOL):
            self._refused = f"the master runs pdbench {theirs.get('version')}, this worker {ours.version}"
        elif not self._welcome:
            self._welcome = True
            self._say(f"taken by the master as worker {ours.name}")

    def _was_refused(self, msg: Any, **_: Any) -> None:
        self._refused = str((msg.data or {}).get("reason", "refused"))

    def _heartbeat(self, **_: Any) -> None:
        self._heard = time.monotonic()

    # ---- a run

    def _talk(self, msg: Any, **_: Any) -> None:
        message = unpack_to_worker(msg.data)
        if isinstance(message, Ping):
            self._send(Pong(message.number, time.monotonic_ns()))
        elif isinstance(message, JobPart):
            self._take_job(message)
        elif self._play is not None and self._play.run == message.run:
            self._play.take(message)

    def _take_job(self, part: JobPart) -> None:
        if self._parcel is None or self._parcel[0] != part.run:
            self._parcel = part.run, Parcel(part.size)
        data = self._parcel[1].add(part.data)
        if data is None:
            return
        self._parcel = None
        if self._play is not None:
            self._play.abandon()
        journal = Path(self._folder.name) / "journal"
        self._play = _Play(part.run, data, self._runner, self._send, journal, self._keys)
        self._say(f"run {part.run}")

    def _send(self, message: Any) -> None:
        self._runner.send_message(TALK, pack(message))

    # ---- the process

    def serve(self) -> None:
        """Until the master quits. Raises ``PdbenchError`` when it vanishes or refuses this worker."""
        try:
            while self._runner.greenlet:
                gevent.sleep(_TICK_S)
                if self._refused:
                    raise UsageError(self._refused, remedy="pdbench --version says what is installed")
                silent_s = time.monotonic() - self._heard
                if silent_s > MASTER_LIMIT_S:
                    raise PdbenchError(
                        f"the master has been silent for {silent_s:.0f} s: it vanished, engines are stopped",
                        where=f"{self._runner.master_host}:{self._runner.master_port}",
                    )
            self._say("the master has quit")
        except KeyboardInterrupt:
            self._runner.environment.events.quitting.fire(environment=self._runner.environment)
            gevent.sleep(_TICK_S)  # for the farewell to leave
            raise Interrupted("interrupted") from None
        finally:
            self.close()

    def close(self) -> None:
        """Stop what runs."""
        if self._play is not None:
            self._play.abandon()
        self._folder.cleanup()


class _Play:
    """One run on this worker."""

    def __init__(
        self,
        run: str,
        data: bytes,
        runner: Any,
        send: Callable[[Any], None],
        journal: Path,
        keys: Collection[str] | None,
    ) -> None:
        self.run = run
        self._runner = runner
        self._send = send
        self._journal = journal
        self._keys = keys
        self._tail = JournalTail(journal)
        self._drive: Drive | None = None
        self._halted = False
        self._greenlet = gevent.spawn(self._guarded, data)

    def take(self, message: Go | Halt | Repace | Ack) -> None:
        """What the master says of this run."""
        if isinstance(message, Ack):
            self._tail.acknowledge(message.upto)
            self._ship()
        elif isinstance(message, Halt):
            self._halted = True
            if self._drive is not None:
                self._drive.stop()
        elif self._drive is not None and isinstance(message, Repace):
            self._drive.retime(message.at_ns, message.factor)
        elif self._drive is not None and isinstance(message, Go):
            self._drive.go(message.t0_ns)

    def abandon(self) -> None:
        """End it now; nothing more is sent."""
        if self._drive is not None and not self._drive.over:
            self._drive.kill()
        self._greenlet.kill(block=True)  # its last act is to end the engine's process

    def _guarded(self, data: bytes) -> None:
        """Whatever happens, the master is told: before there is an engine that the job is refused, later that it
        failed, with what there is of the journal."""
        try:
            self._do(data)
        except UsageError as error:
            self._send(EngineRefused(self.run, error.message, error.where, error.remedy))
        except Exception as error:
            if self._drive is None:
                self._send(EngineRefused(self.run, f"the job cannot be run here: {error}", "", ""))
                return
            with contextlib.suppress(OSError):
                self._ship_rest()
            self._send(RunDone(self.run, None, f"{type(error).__name__}: {error}", self._drive.stderr))

    def _do(self, data: bytes) -> None:
        job = replace(msgspec.json.decode(data, type=Job), journal=str(self._journal))
        check_key(job, self._keys)
        self._journal.unlink(missing_ok=True)
        self._runner.stats.clear_all()
        drive = self._drive = Drive(job)
        if self._halted:
            drive.stop()
        try:
            while not drive.over:
                for message in drive.step():
                    if isinstance(message, Ready):
                        self._send(EngineReady(self.run, message.clock))
                    elif isinstance(message, Delta):
                        shape.fire(self._runner.environment, job.endpoint.path, message)
                        self._send(Counts(self.run, message))
                        self._ship()
        finally:
            drive.end()
        self._ship_rest()
        self._runner._send_stats()  # Locust reports every 3 s, and once more only when it quits
        self._send(RunDone(self.run, drive.final, "" if drive.final else drive.reason, drive.stderr))

    def _ship(self) -> None:
        while data := self._tail.next():
            self._send(JournalPart(self.run, data))

    def _ship_rest(self) -> None:
        limit = time.monotonic() + _SHIP_LIMIT_S
        self._ship()
        while not self._tail.complete and time.monotonic() < limit:
            gevent.sleep(0.005)


def check_key(job: Job, keys: Collection[str] | None) -> None:
    """Raises ``UsageError`` where the job names a variable that is none of ``keys`` (None: any is well). Whoever poses
    as a master could have any variable of ours sent to any URL."""
    variable = job.api_key_env
    if variable is not None and keys is not None and variable not in keys:
        raise UsageError(
            f"the job wants the API key in {variable}, and this worker was not told that it may use that",
            where="--api-key-env",
            remedy=f"start it with pdbench worker --api-key-env {variable}",
        )


def end_with_stdin() -> None:
    """Interrupt this greenlet when standard input closes: whoever started the process is gone."""
    main = gevent.getcurrent()

    def watch() -> None:
        while True:
            wait_read(0)
            if not os.read(0, 4096):
                gevent.kill(main, Interrupted("the process that started this worker is gone"))
                return

    gevent.spawn(watch)


def serve(
    host: str, port: int, *, wait_s: float, lifeline: bool, keys: Collection[str], say: Callable[[str], None]
) -> None:
    """Connect to the master and serve it until it quits. Raises ``UsageError`` when there is none in ``wait_s``.

    ``keys``: see ``Worker``. With ``lifeline`` the master is the process that started this one, with the same
    environment, and may name any.
    """
    if lifeline:
        end_with_stdin()
    _, runner = shape.worker(host, port, max(1, round(wait_s / 5)))
    say(f"connected to {host}:{port}")
    Worker(runner, say, None if lifeline else keys).serve()
