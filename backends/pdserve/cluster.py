"""The front end's side of a deployment: starts the workers, feeds the router, hands tokens to their requests.

One asyncio process holds the HTTP face and the router; each worker is a process of its own, reached over ZeroMQ.
The router is pure; this file carries out what it says.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from pdserve.config import BackendConfig
from pdserve.devices import Device, resolve
from pdserve.log import log
from pdserve.messages import Event, Hello, Load, Peer, Prefill, Probe, Probed, Shutdown, Stepped, encode
from pdserve.model.tokenizer import Tokenizer, load_tokenizer
from pdserve.resolve import resolve_model
from pdserve.router import Action, End, Router, Send, Token, Worker
from pdserve.service import GenerateRequest, Output, Unavailable
from pdserve.simulate import step_row
from pdserve.state import clear_counters, lifecycle, router_state
from pdserve.worker import Job

KEPT_REQUESTS = 100_000
KEPT_STEPS = 200_000
_TICK_S = 0.2
_STOP_S = 3.0
_decode_events = msgspec.msgpack.Decoder(list[Event]).decode


class StartError(Exception):
    """A worker ended before it was ready."""


class Stream:
    """The outputs of one request. Ends after the output that carries ``finish``; closing it early cancels."""

    def __init__(self, cluster: Cluster, id: str) -> None:
        self._cluster = cluster
        self._id = id
        self._outputs: asyncio.Queue[Output] = asyncio.Queue()
        self._over = False

    def put(self, output: Output) -> None:
        self._outputs.put_nowait(output)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Output:
        if self._over:
            raise StopAsyncIteration
        try:
            output = await self._outputs.get()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        self._over = output.finish is not None
        return output

    async def aclose(self) -> None:
        """Cancels the request if it is still running; harmless otherwise."""
        self._over = True
        self._cluster.cancel(self._id)


class Cluster:
    """The workers of one backend behind the ``Service`` protocol."""

    def __init__(self, config: BackendConfig) -> None:
        self.config = config
        self.model = resolve_model(config.model)
        self.model_name = self.model.name
        self.max_len = self.model.max_len
        self.tokenizer: Tokenizer = load_tokenizer(preset=config.model.preset, path=config.model.path)
        self.devices: list[Device] = resolve(config.workers)
        self.router = Router(
            [Worker(i, w.role, w.effective_slots) for i, w in enumerate(config.workers)],
            transfer_timeout_ns=round(config.transfer.timeout_s * 1e9),
        )
        self.started_ns = time.monotonic_ns()
        self.failure: asyncio.Future[str] | None = None
        self._hellos: dict[int, Hello] = {}
        self._loads: dict[int, Load] = {}
        self._probed: dict[int, dict[str, float]] = {}
        self._streams: dict[str, Stream] = {}
        self._lifecycles: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
        self._steps: deque[dict[str, Any]] = deque(maxlen=KEPT_STEPS)
        self._processes: list[asyncio.subprocess.Process] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._broken = ""
        self._serial = itertools.count()
        self._directory = Path(tempfile.mkdtemp(prefix="pdserve-"))
        self._socket: zmq.asyncio.Socket = zmq.asyncio.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        # A router drops silently what is beyond the mark; a lost command is a request that never ends.
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)

    # ---- life

    async def start(self) -> None:
        """Starts the workers and returns when all have said ``Hello``. Raises ``StartError``."""
        endpoint = self._listen()
        assert self.failure is not None
        for index in range(len(self.devices)):
            await self._spawn(index, endpoint)
        while len(self._hellos) < len(self.devices):
            if self.failure.done():
                raise StartError(self.failure.result())
            await asyncio.sleep(0.02)
        # All are connected, and nobody reconnects: what has no name any more cannot be left behind.
        shutil.rmtree(self._directory, ignore_errors=True)

    def _listen(self) -> str:
        """Binds the workers' endpoint and starts the loops."""
        endpoint = f"ipc://{self._directory}/workers"
        self._socket.bind(endpoint)
        self.failure = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._tick())]
        for task in self._tasks:
            task.add_done_callback(self._loop_ended)
        return endpoint

    async def _spawn(self, index: int, endpoint: str) -> None:
        device, model = self.devices[index], self.config.model
        job = Job(
            index=index,
            endpoint=endpoint,
            worker=self.config.workers[index],
            device=device.name,
            cores=list(device.cores),
            preset=model.preset,
            path=model.path,
            seed=model.seed,
            dtype=model.dtype,
            max_len=self.max_len,
            connector=self.config.transfer.connector,
            staging=self.config.transfer.staging,
            devices=[d.name for d in self.devices],
            inject=self.config.inject,
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pdserve.worker", stdin=asyncio.subprocess.PIPE, env=_environment()
        )
        self._processes.append(process)
        self._tasks.append(asyncio.create_task(self._watch(index, process)))
        assert process.stdin is not None
        with suppress(ConnectionError):  # it has ended already: its watch says so
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            await process.stdin.drain()

    def _introduce(self) -> None:
        """Tells every decode worker where each prefill worker stages its KV."""
        for worker in self.router.workers:
            for index, hello in self._hellos.items():
                if worker.role == "decode" and hello.outbox:
                    self._send(worker.index, Peer(index, hello.outbox))

    async def stop(self) -> None:
        """Asks the workers to end, then makes them. Leaves nothing behind."""
        self._stopping = True
        for index, process in enumerate(self._processes):
            if process.returncode is not None:
                continue
            if index in self._hellos:
                self._send(index, Shutdown())
            else:  # still building its model: it would not hear
                process.kill()
        try:
            await asyncio.wait_for(asyncio.gather(*(p.wait() for p in self._processes)), _STOP_S)
        except TimeoutError:
            for process in self._processes:
                if process.returncode is None:
                    process.kill()
            await asyncio.gather(*(p.wait() for p in self._processes))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_streams("the server stopped")
        self._socket.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    # ---- the loops

    async def _pump(self) -> None:
        while True:
            frames = await self._socket.recv_multipart()
            now = time.monotonic_ns()
            for index, event in self._read(frames):
                self._note(index, event)
                self._act(self.router.on_event(index, event, now))

    def _read(self, frames: list[bytes]) -> list[tuple[int, Event]]:
        """The events of one message, with their worker's index. What no worker of ours would send is logged and
        dropped: it must not stop the loop that all requests live on."""
        try:
            identity, data = frames
            index = [str(i).encode() for i in range(len(self.devices))].index(identity)
            return [(index, event) for event in _decode_events(data)]
        except (ValueError, msgspec.MsgspecError) as error:
            log(f"dropped a message that is not a worker's: {error}")
            return []

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        """A loop that fails is a bug here. Say it to everybody: a server that answers nothing looks merely slow."""
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        log("".join(traceback.format_exception(error)))
        self._broken = f"internal error: {error!r}"
        if self.failure is not None and not self.failure.done():
            self.failure.set_result(self._broken)
        self._fail_streams(self._broken)

    def _fail_streams(self, reason: str) -> None:
        for stream in self._streams.values():
            stream.put(Output(None, "error", reason))
        self._streams.clear()

    def _note(self, index: int, event: Event) -> None:
        if isinstance(event, Stepped):
            self._steps.append({**step_row(index, event), "device": self.devices[index].name})
        elif isinstance(event, Hello):
            self._hellos[index] = event
            if len(self._hellos) == len(self.devices):
                # Before anybody can see the cluster ready: a pull must never come before its peer is known.
                self._introduce()
        elif isinstance(event, Probed):
            self._probed[index] = event.times_ms
        elif isinstance(event, Load):
            self._loads[index] = event

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._act(self.router.tick(time.monotonic_ns()))

    async def _watch(self, index: int, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if self._stopping:
            return
        role = self.config.workers[index].role
        text = f"worker {index} ({role}, {self.devices[index].name}) ended with code {code}"
        if self.failure is not None and not self.failure.done():
            self.failure.set_result(text)
        log(text)
        self._loads.pop(index, None)  # the dead hold nothing
        self._act(self.router.worker_died(index, time.monotonic_ns()))

    def _send(self, index: int, command: Any) -> None:
        self._socket.send_multipart([str(index).encode(), encode(command)])

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(worker, command):
                    self._send(worker, command)
                case Token(id, token, finish):
                    if id in self._streams:
                        self._streams[id].put(Output(token, finish or None))
                case End(id, status, reason):
                    stream = self._streams.pop(id, None)
                    if stream and status == "error":
                        stream.put(Output(None, "error", reason))
        for request in self.router.ended:
            self._lifecycles.append({**lifecycle(request), "request_id": request.id.rpartition("#")[0]})
        self.router.ended.clear()

    # ---- the Service protocol

    def ready(self) -> tuple[bool, str]:
        if self._broken:
            return False, self._broken
        missing = [i for i in range(len(self.devices)) if i not in self._hellos]
        if missing:
            return False, f"worker {missing[0]} is still starting"
        reason = "stopping" if self._stopping else self.router.available()
        return not reason, reason

    def submit(self, request: GenerateRequest) -> Stream:
        ready, reason = self.ready()
        if not ready:
            raise Unavailable(reason)
        # A client may use an id again while a worker still runs what was cancelled under it; the events of the old
        # request must not pass for the new one's.
        id = f"{request.id}#{next(self._serial)}"
        stream = Stream(self, id)
        self._streams[id] = stream
        work = Prefill(
            id=id,
            prompt=list(request.tokens),
            prompt_len=len(request.tokens),
            max_new=request.max_new,
            min_new=request.min_new,
            eos=sorted(request.eos),
            temperature=request.sampling.temperature,
            seed=request.sampling.seed,
            handoff=self.router.disaggregated,
        )
        self._act(self.router.submit(work, request.arrive_ns))
        return stream

    def cancel(self, id: str) -> None:
        self._act(self.router.cancel(id, time.monotonic_ns()))

    def state(self) -> dict[str, Any]:
        ready, reason = self.ready()
        books = router_state(self.router)
        for row in books["workers"]:
            row |= self._facts(row["index"])
        return {
            "name": self.config.name,
            "ready": ready,
            "reason": reason,
            "disaggregated": self.router.disaggregated,
            "uptime_ns": time.monotonic_ns() - self.started_ns,
            "model": msgspec.to_builtins(self.model),
            **books,
        }

    def _facts(self, index: int) -> dict[str, Any]:
        hello, load, device = self._hellos.get(index), self._loads.get(index), self.devices[index]
        facts: dict[str, Any] = {"device": device.name, "cores": list(device.cores), "shared": device.shared}
        facts["pid"] = hello.pid if hello else None
        for key in ("slots_used", "running", "waiting", "staged", "rss_bytes"):
            facts[key] = getattr(load, key) if load else 0
        return facts

    async def probe(self) -> list[dict[str, Any]]:
        self._probed.clear()
        alive = [w.index for w in self.router.workers if w.alive]
        for index in alive:
            self._send(index, Probe())
            while index not in self._probed and self.router.workers[index].alive:
                await asyncio.sleep(0.005)
        return [{"worker": i, "device": self.devices[i].name, **self._probed.get(i, {})} for i in alive]

    def lifecycles(self) -> list[dict[str, Any]]:
        return list(self._lifecycles)

    def steps(self) -> list[dict[str, Any]]:
        return list(self._steps)

    def clear(self) -> None:
        clear_counters(self.router)
        self._lifecycles.clear()
        self._steps.clear()


def _environment() -> dict[str, str]:
    """The workers must find this very package, wherever the parent found it."""
    package_parent = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(p for p in (package_parent, os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, "PYTHONPATH": path}
