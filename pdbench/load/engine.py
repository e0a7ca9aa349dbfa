"""The load engine: a process that sends one plan and measures, and does nothing else.

    python -m pdbench.load.engine < messages

It reads the job (one line of JSON) and then commands from stdin, and writes READY, a delta a second and FINAL
to stdout (``delta.py``); every ended request goes to the journal at once. It imports neither locust nor numpy
nor pandas, keeps the garbage collector off, never waits for whoever reads its deltas, and ends when its stdin
closes, so nothing survives a killed harness.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import resource
import signal
import ssl
import sys
import time
from pathlib import Path
from time import monotonic_ns

import msgspec
import uvloop

from pdbench.errors import UsageError
from pdbench.load import delta
from pdbench.load.body import BodyMaker, api_key
from pdbench.load.clock import ClockOffset
from pdbench.load.dial import resolve
from pdbench.load.job import Job
from pdbench.load.journal import Journal
from pdbench.load.lag import LagSummary
from pdbench.load.pipes import Inbox, Outbox, read_line
from pdbench.load.pool import Pool
from pdbench.load.probe import SelfProbe, machine_load, peak_rss_bytes
from pdbench.load.recorder import Recorder
from pdbench.load.sender import Sender
from pdbench.load.stamps import stamps_come
from pdbench.load.timer import LEAD_NS
from pdbench.load.wire import kernel_stamps_work

_WARM_LIMIT_S = 3.0
_WARM_POLL_S = 0.005


class Engine:
    """One job from READY to FINAL."""

    def __init__(self, loop: asyncio.AbstractEventLoop, job: Job, outbox: Outbox) -> None:
        self._loop = loop
        self._job = job
        self._outbox = outbox
        self._started_ns = monotonic_ns()
        self._t0_ns = 0
        self._stopped = False
        self._reported = False
        self._retimed: list[tuple[int, int]] = []
        self._over = loop.create_future()
        self._clock = ClockOffset() if use_kernel_stamps(job) else None
        where = job.endpoint
        bodies = BodyMaker(job, api_key(job.api_key_env))
        self._journal = Journal(Path(job.journal))
        self._recorder = Recorder(job, bodies, self._journal, self._away_ns)
        # Waiting out the last moment before a send delays reads: harmless only if the kernel stamps them.
        lead_ns = LEAD_NS if self._clock is not None else 0
        self._sender = Sender(loop, job, bodies, self._recorder.take, self._all_ended, lead_ns)
        self._pool = Pool(
            loop,
            where,
            resolve(where.host, where.port),
            self._sender,
            self._clock,
            ssl.create_default_context() if where.tls else None,
        )
        self._sender.pool = self._pool
        self._pool.requester = self._sender
        self._probe: SelfProbe | None = None

    @property
    def clock(self) -> delta.Clock:
        return "kernel" if self._clock is not None else "user"

    async def run(self, inbox: Inbox) -> None:
        """Warm up, wait for t0, send, report. Returns after FINAL was written."""
        await self._warm()
        # What exists now lives to the end; a collection would stall the loop for milliseconds.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._outbox.send(delta.Ready(self.clock, self._pool.idle, os.getpid()))
        inbox.listen(self._command, self.stop)
        await self._over
        if self._probe is not None:
            self._probe.close()
        self._pool.close()
        self._send_delta()
        self._reported = True
        self._journal.close()
        self._outbox.send(self._final())
        await self._outbox.drained()

    async def _warm(self) -> None:
        spare = self._sender.prepare()
        limit = self._loop.time() + _WARM_LIMIT_S
        while self._pool.idle < spare and not self._pool.failed and self._loop.time() < limit:
            self._pool.keep_spare(spare)
            await asyncio.sleep(_WARM_POLL_S)

    def _command(self, message: delta.ToEngine) -> None:
        if isinstance(message, delta.Stop):
            self.stop()
        elif isinstance(message, delta.Retime):
            if self._t0_ns and not self._over.done():
                self._retimed.append((message.at_ns, self._sender.retime(message.at_ns, message.factor)))
        elif not self._t0_ns and not self._over.done():
            self._t0_ns = message.t0_ns
            self._probe = SelfProbe(self._loop, activity=self._activity)
            self._sender.start(message.t0_ns)
            self._loop.call_later(1.0, self._every_second)

    def _activity(self) -> int:
        return self._pool.count.reads + self._sender.offered

    def _away_ns(self, read_ns: int) -> int:
        return self._probe.away_ns(read_ns) if self._probe is not None else 0

    def stop(self) -> None:
        """End now; harmless when the run is over."""
        if not self._over.done():
            self._stopped = True
            self._sender.stop()

    def _all_ended(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _every_second(self) -> None:
        if self._over.done():
            return
        self._loop.call_later(1.0, self._every_second)
        if self._clock is not None:
            self._clock.retake()
        self._sender.idle.add(self._send_delta)
        self._journal.flush()

    def _send_delta(self) -> None:
        if self._reported:
            return
        sender, recorder = self._sender, self._recorder
        ttft_hdr, tbt_hdr, done = recorder.interval()
        self._outbox.send(
            delta.Delta(
                t_s=round((monotonic_ns() - self._t0_ns) / 1e9, 3) if self._t0_ns else 0.0,
                planned=len(self._job),
                offered=sender.offered,
                sent=sender.sent,
                ok=recorder.ok,
                failed=recorder.recorded - recorder.ok,
                in_flight=sender.in_flight,
                waiting=sender.waiting,
                tokens=recorder.tokens,
                dispatch_lag=sender.dispatch_lag.summary(),
                client_lag=self._client_lag(),
                ttft_hdr=ttft_hdr,
                tbt_hdr=tbt_hdr,
                done=done,
            )
        )

    def _client_lag(self) -> LagSummary:
        """By the kernel's stamps; where there are none, by the probe's alarms."""
        if self._clock is not None:
            return self._recorder.client_lag.summary()
        return self._probe.loop_lag.summary() if self._probe is not None else LagSummary()

    def _final(self) -> delta.Final:
        probe, recorder = self._probe, self._recorder
        facts = delta.EngineFacts(
            clock=self.clock,
            timer=self._sender.timer,
            dispatch_lag=self._sender.dispatch_lag.summary(),
            client_lag=self._client_lag(),
            loop_lag=probe.loop_lag.summary() if probe is not None else LagSummary(),
            wake_lag=self._pool.wake.lag.summary(),
            cpu_share=probe.cpu_shares() if probe is not None else None,
            cpu_wait_share=probe.cpu_wait_share if probe is not None else None,
            events_per_read=recorder.events / recorder.reads if recorder.reads else None,
            merged_share=recorder.merged_events / recorder.events if recorder.events else 0.0,
            unstamped_share=self._pool.count.unstamped / self._pool.count.reads if self._pool.count.reads else 0.0,
            peak_rss_bytes=peak_rss_bytes(),
            steal_share=probe.steal_share if probe is not None else None,
            machine_load=machine_load(),
            cpu_s=round(time.process_time(), 4),
            wall_s=round((monotonic_ns() - self._started_ns) / 1e9, 4),
            connections_opened=self._pool.opened,
            connections_failed=self._pool.failed,
            retried=self._sender.retried,
            late_bodies=self._sender.late_bodies,
            reads=self._recorder.reads,
            max_events_per_read=self._recorder.max_events_per_read,
            clock_offset_drift_ns=self._clock.drift_ns if self._clock is not None else 0,
            python=platform.python_version(),
            uvloop=str(getattr(uvloop, "__version__", "?")),
        )
        return delta.Final(
            stopped=self._stopped,
            offered=self._sender.offered,
            recorded=self._recorder.recorded,
            facts=facts,
            retimed=self._retimed,
        )


def use_kernel_stamps(job: Job) -> bool:
    """Whether the kernel stamps the bytes. Raises UsageError when it must and cannot."""
    if job.clock == "user" or job.endpoint.tls:
        return False
    if kernel_stamps_work() and stamps_come():
        return True
    if job.clock == "kernel":
        raise UsageError(
            "this system gives no kernel receive stamps", where="--clock kernel", remedy="use --clock auto"
        )
    return False


def allow_many_sockets() -> None:
    """As many open files as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _amain(job: Job, rest: bytes) -> int:
    loop = asyncio.get_running_loop()
    outbox = Outbox(loop, sys.stdout.fileno())
    try:
        engine = Engine(loop, job, outbox)
    except UsageError as error:
        outbox.send(delta.Refused(error.message, error.where, error.remedy))
        await outbox.drained()
        return error.exit_code
    except OSError as error:
        outbox.send(delta.Refused(f"{error.strerror or error}", job.base_url if not error.filename else job.journal))
        await outbox.drained()
        return UsageError.exit_code
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, engine.stop)
    await engine.run(Inbox(loop, sys.stdin.fileno(), rest))
    return 0


def main() -> int:
    """Exit code 0 after FINAL, 2 when the job was refused or nothing came on stdin."""
    line, rest = read_line(sys.stdin.fileno())
    if not line:
        return UsageError.exit_code
    job = msgspec.json.decode(line, type=Job)
    allow_many_sockets()
    return uvloop.run(_amain(job, rest))


if __name__ == "__main__":
    sys.exit(main())
