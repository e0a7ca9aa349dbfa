"""A worker process: one device, one compute thread a core, one loop.

Started by ``cluster`` as ``python -m pdserve.worker``, with its job as JSON on the first line of standard input.
Standard input stays open as a lifeline: when it closes, whoever started the worker is gone, and so is the worker.
Affinity, thread count and niceness are set before torch is imported. Workers run at a lower priority than the
router and the client, so that on a machine where all share cores the stamps are not late.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import zmq

from pdserve.cache import SlotCache
from pdserve.config import Inject, WorkerConfig
from pdserve.engine import Engine
from pdserve.inject import Slowdown
from pdserve.log import log
from pdserve.messages import Hello, Load, decode_command, encode
from pdserve.scheduler import Scheduler
from pdserve.transfer.base import Outbox, Receiver

if TYPE_CHECKING:
    from pdserve.executors.base import Executor

NICE = 5
_LOAD_EVERY_NS = 250_000_000
_IDLE_POLL_MS = 1_000


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker needs to know. ``devices``: of all workers in a hand-off, to choose the connector."""

    index: int
    endpoint: str
    worker: WorkerConfig
    device: str
    cores: list[int]
    preset: str | None
    path: str | None
    seed: int
    dtype: str
    max_len: int
    connector: str
    staging: int
    devices: list[str]
    inject: Inject | None = None


def main() -> int:
    """Reads the job, builds the model, says ``Hello`` and works until told to stop."""
    # Ctrl-C reaches the whole terminal; when to end is for the front end to say, by message or by the lifeline.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_lifeline, daemon=True).start()
    if job.cores:
        os.sched_setaffinity(0, job.cores)
    if job.device.startswith("cpu"):
        os.nice(NICE)
    threads = max(1, len(job.cores))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    if job.device.startswith("cuda"):
        # What names no device (host registration, new events) must not open a context on somebody else's GPU.
        torch.cuda.set_device(job.device)
    serve(job, _connect(job))
    return 0


def _connect(job: Job) -> zmq.Socket[bytes]:
    """The socket to the router. Made after the process is pinned, so that ZeroMQ's thread stays on this device's cores:
    left free it would take time from the other device's; no gain beyond this machine's noise was seen from that."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, str(job.index).encode())
    socket.setsockopt(zmq.LINGER, 500)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.connect(job.endpoint)
    return socket


def serve(job: Job, socket: zmq.Socket[bytes]) -> None:
    """Builds executor and engine, then runs the loop."""
    from pdserve.executors.probe import probe
    from pdserve.executors.torch_executor import build_executor
    from pdserve.transfer.connectors import choose, make_receiver, make_sender

    slots = job.worker.effective_slots
    executor = build_executor(
        preset=job.preset,
        path=job.path,
        seed=job.seed,
        dtype=job.dtype,
        device=job.device,
        slots=slots,
        max_len=job.max_len,
    )
    executor.warm_up()
    connector = choose(job.connector, job.devices)
    if job.connector not in ("auto", connector):
        log(f"worker {job.index}: connector {job.connector} cannot join {', '.join(job.devices)}; using {connector}")
    sender = make_sender(connector, executor.kv, job.staging) if job.worker.role == "prefill" else None
    receiver: Receiver | None = None
    if job.worker.role == "decode":
        receiver = make_receiver(connector, executor.kv)
    scheduler = Scheduler(
        job.worker.effective_policy,
        SlotCache(slots, job.max_len),
        max_batch=job.worker.max_batch,
        max_batch_tokens=job.worker.max_batch_tokens,
        token_budget=job.worker.token_budget,
    )
    slowdown = Slowdown(job.inject, job.index)
    if receiver and job.inject:
        receiver = SlowReceiver(receiver, slowdown)
    measure = partial(probe, executor.device, executor.kv.data.dtype)
    engine = Engine(scheduler, sender=sender, receiver=receiver, now=time.monotonic_ns, probe=measure)
    outbox = sender.outbox() if sender else None
    hello = Hello(job.device, os.getpid(), job.max_len, executor.kv.bytes_per_token, outbox)
    socket.send(encode([hello, _load(engine)]))
    loop(engine, executor, socket, slowdown)


def loop(engine: Engine, executor: Executor, socket: zmq.Socket[bytes], slowdown: Slowdown) -> None:
    """Commands, step, events, again; blocks while there is nothing to do."""
    now = time.monotonic_ns
    reported = now()
    stale = False
    while not engine.stopping:
        events = engine.settle()
        while not engine.stopping and socket.poll(0):
            events += engine.handle(decode_command(socket.recv()))
        stale = stale or bool(events)
        step = engine.begin()
        if events:
            socket.send(encode(events))
        if step is None:
            if stale:
                socket.send(encode([_load(engine)]))
                stale = False
            # A command may bring no event (a cancel does not), so look again after each.
            stale = bool(socket.poll(_IDLE_POLL_MS))
            continue
        start = now()
        tokens = executor.run(step.chunks)
        if slowdown.active:
            burn(slowdown.step_ns(step, now() - start))
        events = engine.finish(step, tokens, start, now())
        stale = True
        if now() - reported > _LOAD_EVERY_NS:
            reported = now()
            events.append(_load(engine))
        socket.send(encode(events))


class SlowReceiver:
    """A receiver whose copies take longer on purpose."""

    def __init__(self, receiver: Receiver, slowdown: Slowdown) -> None:
        self._receiver = receiver
        self._slowdown = slowdown

    def connect(self, source: int, outbox: Outbox) -> None:
        self._receiver.connect(source, outbox)

    def pull(self, source: int, place: int, generation: int, slot: int, positions: int) -> None:
        start = time.monotonic_ns()
        self._receiver.pull(source, place, generation, slot, positions)
        burn(self._slowdown.transfer_ns(time.monotonic_ns() - start))

    def close(self) -> None:
        self._receiver.close()


def burn(ns: int) -> None:
    """Keeps the core busy, as slower compute would."""
    end = time.monotonic_ns() + ns
    while time.monotonic_ns() < end:
        pass


def _load(engine: Engine) -> Load:
    sender = engine.sender
    return Load(
        slots=engine.cache.slots,
        slots_used=engine.cache.used,
        running=engine.running,
        waiting=engine.waiting,
        staged=sender.staged if sender else 0,
        rss_bytes=_rss_bytes(),
    )


def _rss_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - a hot path of a few microseconds
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _lifeline() -> None:
    """Ends the process at once when standard input closes."""
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
