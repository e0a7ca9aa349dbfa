"""The whole cluster on a virtual clock: the same router, engine, scheduler and cache, and no waiting.

A heap of instants replaces sockets and devices. A worker is busy for as long as the cost model says; commands
that reach it meanwhile wait until the step ends, as they do in a real worker. Nothing here is random, so the same
plan gives the same answer to the nanosecond. What comes out is simulated and says so.

    python -m pdserve simulate --json-in job.json --out result.json
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pdserve.cache import SlotCache
from pdserve.config import BackendConfig, WorkerConfig, fail
from pdserve.engine import Engine
from pdserve.executors.virtual import VirtualReceiver, VirtualSender, step_ns, transfer_ns
from pdserve.inject import Slowdown
from pdserve.messages import Command, Prefill, Pull, Stepped
from pdserve.resolve import resolve_model
from pdserve.router import Action, Router, Send, Worker
from pdserve.scheduler import Scheduler
from pdserve.sequence import Step
from pdserve.state import lifecycle, router_state
from pdserve.transfer.base import Places

# At one instant: arrivals first, then what the network brings, then steps that end, then workers that look about.
_ARRIVE, _DELIVER, _DONE, _WAKE = range(4)


@dataclass(slots=True)
class _Worker:
    index: int
    engine: Engine
    slowdown: Slowdown
    inbox: list[Command] = field(default_factory=list)
    busy: bool = False
    awake: bool = False


class Simulation:
    """Runs one plan through one backend on the virtual clock."""

    def __init__(self, config: BackendConfig) -> None:
        if config.cost_model is None:
            raise fail("cost_model", message="the virtual clock needs a cost model", remedy="add cost_model:")
        if config.inject and config.inject.drop_share:
            raise fail("inject", "drop", message="the virtual clock drops nothing", remedy="leave it out")
        self.cost = config.cost_model
        self.model = resolve_model(config.model)
        self.now = 0
        self.router = Router(
            [Worker(i, w.role, w.effective_slots) for i, w in enumerate(config.workers)],
            transfer_timeout_ns=round(config.transfer.timeout_s * 1e9),
        )
        self.workers = [
            _Worker(i, self._engine(w, config.transfer.staging), Slowdown(config.inject, i))
            for i, w in enumerate(config.workers)
        ]
        self.steps: list[dict[str, int]] = []
        self._heap: list[tuple[int, int, int, Callable[[], None]]] = []
        self._order = 0

    def _engine(self, worker: WorkerConfig, staging: int) -> Engine:
        scheduler = Scheduler(
            worker.effective_policy,
            SlotCache(worker.effective_slots, self.model.max_len),
            max_batch=worker.max_batch,
            max_batch_tokens=worker.max_batch_tokens,
            token_budget=worker.token_budget,
        )
        sender = VirtualSender(Places(staging), self.model.kv_bytes_per_token)
        return Engine(scheduler, sender=sender, receiver=VirtualReceiver(), now=lambda: self.now)

    def run(self, requests: list[Prefill], arrivals_ns: list[int]) -> None:
        """Offers ``requests[i]`` at ``arrivals_ns[i]`` and runs until nothing is left to do."""
        for request, at in zip(requests, arrivals_ns, strict=True):
            self._at(at, _ARRIVE, lambda r=request: self._act(self.router.submit(r, self.now)))  # type: ignore[misc]
        while self._heap:
            self.now, _, _, happen = heapq.heappop(self._heap)
            happen()
        if self.router.live:
            raise RuntimeError(f"{len(self.router.live)} requests never ended: a scheduler bug")

    def _at(self, when: int, priority: int, happen: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, priority, self._order, happen))

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self._send(self.workers[action.worker], action.command)

    def _send(self, worker: _Worker, command: Command) -> None:
        """Delivers a command: at once, except that KV takes its time on the link."""
        delay = 0
        if isinstance(command, Pull):
            delay = transfer_ns(self.cost, command.positions * self.model.kv_bytes_per_token)
            delay += worker.slowdown.transfer_ns(delay)
        self._at(self.now + delay, _DELIVER, lambda: self._deliver(worker, command))

    def _deliver(self, worker: _Worker, command: Command) -> None:
        worker.inbox.append(command)
        self._wake(worker)

    def _wake(self, worker: _Worker) -> None:
        if not worker.busy and not worker.awake:
            worker.awake = True
            self._at(self.now, _WAKE, lambda: self._look(worker))

    def _look(self, worker: _Worker) -> None:
        """Between two steps: take the commands, then begin a step if there is one."""
        worker.awake = False
        commands, worker.inbox = worker.inbox, []
        for command in commands:
            for event in worker.engine.handle(command):
                self._act(self.router.on_event(worker.index, event, self.now))
        step = worker.engine.begin()
        if step is None:
            return
        worker.busy = True
        start = self.now
        took = step_ns(self.cost, step)
        took += worker.slowdown.step_ns(step, took)
        self._at(start + took, _DONE, lambda: self._done(worker, step, start))

    def _done(self, worker: _Worker, step: Step, start: int) -> None:
        worker.busy = False
        tokens = [0 if c.samples else None for c in step.chunks]
        for event in (*worker.engine.finish(step, tokens, start, self.now), *worker.engine.settle()):
            if isinstance(event, Stepped):
                self.steps.append(step_row(worker.index, event))
            self._act(self.router.on_event(worker.index, event, self.now))
        self._wake(worker)


def step_row(worker: int, event: Stepped) -> dict[str, int]:
    """One row of ``/admin/steps``."""
    return {
        "worker": worker,
        "start_ns": event.start_ns,
        "end_ns": event.end_ns,
        "prefill_tokens": event.prefill_tokens,
        "decode_tokens": event.decode_tokens,
        "sequences": event.sequences,
        "context_tokens": event.context_tokens,
    }


def simulate(config: BackendConfig, plan: dict[str, list[int]]) -> dict[str, Any]:
    """Runs ``plan`` (``scheduled_ns``, ``prompt_tokens``, ``output_tokens``, one entry a request) and returns
    the result document (schema_version 1). Raises ``ConfigError`` for a request longer than the model takes."""
    simulation = Simulation(config)
    rows = list(zip(plan["prompt_tokens"], plan["output_tokens"], strict=True))
    for i, (prompt, output) in enumerate(rows):
        if prompt + output > simulation.model.max_len:
            raise fail(
                "plan",
                i,
                message=f"{prompt} + {output} tokens are longer than the model's {simulation.model.max_len}",
            )
    requests = [
        Prefill(f"sim-{i}", [], p, o, o, [], 0.0, 0, simulation.router.disaggregated) for i, (p, o) in enumerate(rows)
    ]
    simulation.run(requests, plan["scheduled_ns"])
    ended = {r.id: r for r in simulation.router.ended}
    return {
        "schema_version": 1,
        "simulated": True,
        "requests": [{"index": i, **lifecycle(ended[r.id])} for i, r in enumerate(requests)],
        "steps": simulation.steps,
        "state": {"name": config.name, "simulated": True, **router_state(simulation.router)},
    }
