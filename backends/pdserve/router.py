"""Where a request goes and what it is waiting for: two queues, least-loaded dispatch, the hand-off. Pure.

Colocated::      QUEUED -> PREFILL -> DECODE -> ended            (all on one worker)
Disaggregated::  QUEUED -> PREFILL -> PULLING -> DECODE -> ended
                          (worker P)             (worker D)

The prefill queue is the router's: a request leaves it, first come first served, when the least loaded worker has
a slot. The hand-off queue is bounded by what prefill workers can hold: when no decode slot is free, finished
prompts keep their slots, prefill workers fill up, and the prefill queue grows. That is backpressure.

The decode slot is asked for when the prefill is dispatched, so that the answer has usually come when the prompt is
done and no round trip between two steps is paid. Every request ends exactly once, and each end tells both sides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from pdserve.messages import (
    Cancel,
    Command,
    Event,
    Failed,
    Grant,
    Hello,
    Load,
    Prefill,
    Probed,
    Pull,
    Pulled,
    Pushed,
    Release,
    Reserve,
    Reserved,
    Stepped,
)


class Phase(Enum):
    QUEUED = "queued"
    PREFILL = "prefill"
    PULLING = "pulling"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Send:
    """Give ``command`` to worker ``worker``."""

    worker: int
    command: Command


@dataclass(frozen=True, slots=True)
class Token:
    """Give this token to whoever asked for request ``id``."""

    id: str
    token: int
    finish: str


@dataclass(frozen=True, slots=True)
class End:
    """Request ``id`` is over: ``ok``, ``cancelled`` or ``error`` with its reason. Comes once per request."""

    id: str
    status: str
    reason: str = ""


Action = Send | Token | End


@dataclass(slots=True)
class Lifecycle:
    """A request's stamps in ns (``None``: it did not get there)."""

    arrive_ns: int
    prefill_start_ns: int | None = None
    prefill_end_ns: int | None = None
    transfer_start_ns: int | None = None
    transfer_end_ns: int | None = None
    decode_admit_ns: int | None = None
    end_ns: int | None = None
    kv_bytes: int = 0
    token_ns: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Request:
    """One live request, and afterwards its record."""

    work: Prefill
    stamps: Lifecycle
    phase: Phase = Phase.QUEUED
    prefill_worker: int | None = None
    decode_worker: int | None = None
    place: tuple[int, int] | None = None
    deadline_ns: int | None = None
    first_token: int = -1
    status: str = ""
    reason: str = ""

    @property
    def id(self) -> str:
        return self.work.id


@dataclass(slots=True, eq=False)
class Worker:
    """What the router knows about a worker: its role, its room, its counters."""

    index: int
    role: str
    slots: int
    alive: bool = True
    live: int = 0
    queued_tokens: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    decode_steps: int = 0
    steps: int = 0
    busy_ns: int = 0

    @property
    def load(self) -> tuple[int, int, int]:
        """Least-loaded order: prompt tokens still to run, then live requests, then index."""
        return (self.queued_tokens, self.live, self.index)


class Router:
    """Dispatches requests over ``workers`` and drives their hand-offs. Every method returns what to do."""

    def __init__(self, workers: Iterable[Worker], *, transfer_timeout_ns: int) -> None:
        self.workers = list(workers)
        self.transfer_timeout_ns = transfer_timeout_ns
        self.queue: deque[Request] = deque()
        self.live: dict[str, Request] = {}
        self.ended: list[Request] = []
        self.transfers = 0
        self.transfer_bytes = 0
        self.released = 0
        self.failed_transfers = 0
        self.disaggregated = any(w.role == "prefill" for w in self.workers)

    # ---- from the outside

    def submit(self, work: Prefill, now: int) -> list[Action]:
        """Queues a request. Its id must be unique among the live ones."""
        if work.id in self.live:
            raise ValueError(f"request {work.id} is live already")
        request = Request(work, Lifecycle(now))
        self.live[work.id] = request
        self.queue.append(request)
        return self._dispatch()

    def cancel(self, id: str, now: int) -> list[Action]:
        """Ends a request early and frees what it holds on both sides. Unknown or ended ids are fine."""
        request = self.live.get(id)
        return self._end(request, "cancelled", "", now) if request else []

    def worker_died(self, index: int, now: int) -> list[Action]:
        """Every request that needs the dead worker fails; what its peers hold for it is freed."""
        worker = self.workers[index]
        if not worker.alive:
            return []
        worker.alive = False
        actions: list[Action] = []
        for request in list(self.live.values()):
            if self._needs(request, index):
                actions += self._end(request, "error", f"worker {index} ({worker.role}) died", now)
        for role in self._stranded():
            for request in list(self.queue):
                actions += self._end(request, "error", f"no live {role} worker", now)
        return actions

    def tick(self, now: int) -> list[Action]:
        """Gives up hand-offs that are older than the time-out. Call it a few times a second."""
        late = [r for r in self.live.values() if r.deadline_ns is not None and now >= r.deadline_ns]
        actions: list[Action] = []
        for request in late:
            self.failed_transfers += 1
            actions += self._end(request, "error", "KV transfer timed out", now)
        return actions

    def available(self) -> str:
        """Why new requests cannot be served, or ``""``."""
        missing = self._stranded()
        return f"no live {' and no live '.join(missing)} worker" if missing else ""

    # ---- from the workers

    def on_event(self, index: int, event: Event, now: int) -> list[Action]:
        """Takes a worker's event. Events about requests that ended meanwhile are harmless."""
        match event:
            case Stepped():
                return self._stepped(self.workers[index], event)
            case Reserved():
                return self._reserved(event)
            case Pushed():
                return self._pushed(event, index, now)
            case Pulled():
                return self._pulled(event)
            case Failed():
                return self._failed(event, index, now)
            case Hello() | Load() | Probed():
                return []

    def _stepped(self, worker: Worker, event: Stepped) -> list[Action]:
        worker.steps += 1
        worker.prefill_tokens += event.prefill_tokens
        worker.decode_tokens += event.decode_tokens
        worker.decode_steps += event.decode_tokens > 0
        worker.busy_ns += event.end_ns - event.start_ns
        for id in event.began:
            if id in self.live:
                self.live[id].stamps.prefill_start_ns = event.start_ns
        for id in event.decoding:
            if id in self.live:
                self.live[id].stamps.decode_admit_ns = event.start_ns
        actions: list[Action] = []
        for emitted in event.emitted:
            request = self.live.get(emitted.id)
            if request is None:
                continue
            if not request.stamps.token_ns:
                self._prompt_done(request, worker, emitted.token, event.end_ns)
            request.stamps.token_ns.append(event.end_ns)
            actions.append(Token(emitted.id, emitted.token, emitted.finish))
            if emitted.finish:
                actions += self._end(request, "ok", "", event.end_ns)
        return actions

    def _prompt_done(self, request: Request, worker: Worker, token: int, end_ns: int) -> None:
        request.first_token = token
        request.stamps.prefill_end_ns = end_ns
        worker.queued_tokens -= request.work.prompt_len
        if not request.work.handoff:
            request.phase = Phase.DECODE

    def _reserved(self, event: Reserved) -> list[Action]:
        request = self.live.get(event.id)
        if request is None or request.prefill_worker is None:
            return []
        return [Send(request.prefill_worker, Grant(event.id))]

    def _pushed(self, event: Pushed, index: int, now: int) -> list[Action]:
        request = self.live.get(event.id)
        if request is None:
            return [Send(index, Release(event.place, event.generation))]
        assert request.decode_worker is not None
        request.phase = Phase.PULLING
        request.place = (event.place, event.generation)
        request.deadline_ns = now + self.transfer_timeout_ns
        request.stamps.transfer_start_ns = event.start_ns
        request.stamps.kv_bytes = event.nbytes
        self.workers[index].live -= 1
        pull = Pull(event.id, index, event.place, event.generation, event.positions, request.first_token)
        return [Send(request.decode_worker, pull), *self._dispatch()]

    def _pulled(self, event: Pulled) -> list[Action]:
        request = self.live.get(event.id)
        if request is None or request.place is None:
            return []
        self.transfers += 1
        self.transfer_bytes += request.stamps.kv_bytes
        request.phase = Phase.DECODE
        request.deadline_ns = None
        request.stamps.transfer_end_ns = event.end_ns
        return self._release(request)

    def _failed(self, event: Failed, index: int, now: int) -> list[Action]:
        request = self.live.get(event.id)
        if request is None:
            return []
        self.failed_transfers += request.phase is Phase.PULLING
        return self._end(request, "error", f"worker {index}: {event.reason}", now)

    # ---- inside

    def _dispatch(self) -> list[Action]:
        """Moves the head of the prefill queue to the least loaded worker with a slot, while there is one."""
        actions: list[Action] = []
        while self.queue and not self._stranded():
            worker = self._least_loaded("prefill" if self.disaggregated else "mixed")
            if worker is None or worker.live >= worker.slots:
                break
            request = self.queue.popleft()
            request.phase = Phase.PREFILL
            request.prefill_worker = worker.index
            worker.live += 1
            worker.queued_tokens += request.work.prompt_len
            actions.append(Send(worker.index, request.work))
            if self.disaggregated:
                actions += self._reserve(request)
        return actions

    def _reserve(self, request: Request) -> list[Action]:
        worker = self._least_loaded("decode")
        if worker is None:
            return []
        request.decode_worker = worker.index
        worker.live += 1
        return [Send(worker.index, Reserve(request.work))]

    def _least_loaded(self, role: str) -> Worker | None:
        """The live worker with the fewest waiting prompt tokens, one with a free slot first."""
        alive = [w for w in self.workers if w.alive and w.role == role]
        return min(alive, key=lambda w: (w.live >= w.slots, w.load), default=None)

    def _release(self, request: Request) -> list[Action]:
        """Frees the staging place the request's KV lies in, once."""
        if request.place is None or request.prefill_worker is None:
            return []
        place, generation = request.place
        request.place = None
        self.released += 1
        return [Send(request.prefill_worker, Release(place, generation))]

    def _end(self, request: Request, status: str, reason: str, now: int) -> list[Action]:
        """The one way a request ends: books it, tells the workers that still hold something, fills the room."""
        del self.live[request.id]
        if request.phase is Phase.QUEUED:
            self.queue.remove(request)
        request.status, request.reason = status, reason
        request.stamps.end_ns = now
        self.ended.append(request)
        actions: list[Action] = []
        for index in self._holders(request):
            worker = self.workers[index]
            worker.live -= 1
            if index == request.prefill_worker and not request.stamps.token_ns:
                worker.queued_tokens -= request.work.prompt_len
            if not (status == "ok" and index == self._finisher(request)):
                actions.append(Send(index, Cancel(request.id)))
        actions += self._release(request)
        actions.append(End(request.id, status, reason))
        actions += self._dispatch()
        return [a for a in actions if not isinstance(a, Send) or self.workers[a.worker].alive]

    def _holders(self, request: Request) -> list[int]:
        """Workers whose ``live`` still counts the request."""
        holders = []
        if request.prefill_worker is not None and (request.phase is Phase.PREFILL or not request.work.handoff):
            holders.append(request.prefill_worker)
        if request.decode_worker is not None:
            holders.append(request.decode_worker)
        return holders

    def _finisher(self, request: Request) -> int | None:
        """The worker that emitted the last token: it has freed its slot itself."""
        if not request.work.handoff or request.phase is Phase.PREFILL:
            return request.prefill_worker
        return request.decode_worker

    def _needs(self, request: Request, index: int) -> bool:
        if request.phase is Phase.DECODE and request.work.handoff:
            return request.decode_worker == index
        return index in (request.prefill_worker, request.decode_worker)

    def _stranded(self) -> list[str]:
        """Roles without a live worker."""
        roles = ("prefill", "decode") if self.disaggregated else ("mixed",)
        return [r for r in roles if not any(w.alive and w.role == r for w in self.workers)]
